"""What a run begins with: the model, new or from a checkpoint, and what its checkpoint will say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import seed_everything

from poyo_edge.arrays import Float32
from poyo_edge.artifact import Session
from poyo_edge.artifact.core_weights import core_hash, half_split_order, permute_rows
from poyo_edge.checkpoint import Checkpoint, load_checkpoint
from poyo_edge.checkpoint.readouts import readouts_of
from poyo_edge.errors import CheckpointError, SessionError, UsageError
from poyo_edge.filters.named import NamedFilter
from poyo_edge.model import POYO, VocabEmbedding
from poyo_edge.records import FieldError, checked, field_hints, in_words
from poyo_edge.spec import OutputScale
from poyo_edge.training.lazy import unit_names
from poyo_edge.training.recipe import Recipe, check_spec
from poyo_edge.training.sharing import (
    SharedTables,
    electrode_key,
    shared_tables,
    twin_of,
    write_guess,
)
from poyo_edge.training.sources import Told, TrainingSession, open_sessions
from poyo_edge.training.windows import StepBatches, WindowDataset
from poyo_edge.unit_guess import UnitGuess

_READOUT_IDS = {"cursor.vel": "cursor_velocity_2d", "cursor.pos": "cursor_position_2d"}
"""Names of behaviours in torch_brain 0.1's list of modalities."""
_ENCODER = {
    "token_type": "token_type_emb.weight",
    "context_norm.weight": "enc_atn.norm_context.weight",
    "context_norm.bias": "enc_atn.norm_context.bias",
    "to_kv": "enc_atn.to_kv.weight",
}
"""Weights that a session may have of its own (``core_inputs.ENCODER_WEIGHTS``), and their keys."""
_T_MIN = 1e-4
"""torch_brain's default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """All that a run needs, checked."""

    recipe: Recipe
    sessions: list[TrainingSession]
    model: POYO
    steps: int
    steps_per_epoch: int
    n_windows: int
    """Windows in an epoch."""
    tables: SharedTables | None = None
    """What the rows of the model's tables are sums of, if units share embeddings."""
    filters: Mapping[str, NamedFilter] = dataclasses.field(default_factory=dict)
    """Session → the filter that it mixes with what the model decodes, as it was calibrated."""

    @property
    def start_share(self) -> float:
        """Share of the weights that tuning began with in those that are kept."""
        worth = self.recipe.start_worth_s
        return worth / (worth + sum(s.seconds for s in self.sessions)) if worth else 0.0

    def dataset(self) -> WindowDataset:
        """Windows of the sessions, with the rows of the model's tables."""
        vocabs = self.model.unit_emb.vocab, self.model.session_emb.vocab
        return WindowDataset(self.sessions, self.recipe, *vocabs)

    def hyper_parameters(self) -> dict[str, Any]:
        """The keys that torch_brain 0.1 wrote, its output scale, and the recipe."""
        spec, recipe = self.model.spec, self.recipe
        sources = dict.fromkeys(s.source for s in self.sessions)
        return {
            "model": {
                "_target_": "torch_brain.models.POYO",
                "sequence_length": spec.window_seconds,
                "latent_step": float(spec.latent_step_s),
                "num_latents_per_step": spec.latents_per_step,
                "dim": spec.dim,
                "dim_head": spec.dim_head,
                "depth": spec.depth,
                "cross_heads": spec.cross_heads,
                "self_heads": spec.self_heads,
                "ffn_dropout": recipe.ffn_dropout,
                "lin_dropout": recipe.lin_dropout,
                "atn_dropout": recipe.atn_dropout,
                **({} if recipe.t_min == _T_MIN else {"t_min": recipe.t_min}),
            },
            "dataset": [self._source(name) for name in sources],
            "recipe": recipe.to_json(),
            "steps": self.steps,
        }

    def _source(self, name: str) -> dict[str, Any]:
        sessions = [s for s in self.sessions if s.source == name]
        behavior = self.recipe.data[name].behavior
        scale: OutputScale = sessions[0].scale
        readout = {
            "readout_id": _READOUT_IDS.get(behavior, behavior.replace(".", "_")),
            "normalize_mean": _number_or_list(scale.offset),
            "normalize_std": _number_or_list(scale.scale),
            "timestamp_key": f"{behavior.partition('.')[0]}.timestamps",
            "value_key": behavior,
            "unit": scale.unit,
        }
        return {
            "selection": [{"sessions": [s.session_id for s in sessions]}],
            "config": {"readout": readout},
        }


def _number_or_list(values: tuple[float, ...]) -> float | list[float]:
    numbers = [float(v) for v in values]
    return numbers[0] if len(numbers) == 1 else numbers


def prepare(
    data: str | Path | Sequence[str | Path],
    recipe: Recipe,
    *,
    start_from: str | Path | None = None,
    start_sessions: Sequence[str | Path] = (),
    on_progress: Told | None = None,
) -> Plan:
    """Check recordings and recipe and make the model; seeds Python, numpy and torch.

    Args:
        data: see ``open_sessions``.
        recipe: with the sizes of the model, unless a checkpoint brings them.
        start_from: a checkpoint whose weights to begin with. Its sizes and periods win over the
            recipe's, its scale serves sources without one; units and sessions that it knows keep
            their embeddings, others get what it guesses of them, or new ones.
        start_sessions: files of what ``calibrate`` found to that checkpoint; see
            ``begin_with_sessions``.
        on_progress: told after each recording.

    Raises:
        RecordingError, UsageError: see ``open_sessions``.
        SessionError, UsageError: see ``begin_with_sessions``.
        CheckpointError: ``start_from`` cannot be used.
    """
    source = None if start_from is None else load_checkpoint(start_from)
    if start_sessions and (source is None or recipe.share_units):
        raise UsageError(
            "--session: expected --from, the checkpoint that it was calibrated to, and a recipe "
            f"without share_units, got {'none' if source is None else repr(recipe.share_units)}"
        )
    if source is not None:
        check_spec(source.spec)
        recipe = _continuing(recipe, source)
    sessions = open_sessions(data, recipe, on_progress)
    guess = None if source is None else source.guess
    if source is None or (guess is not None and not _known(sessions, guess)):
        recipe = dataclasses.replace(recipe, start_worth_s=0.0)
    seed_everything(recipe.seed, verbose=False)
    words = [s.session_id for s in sessions]
    if recipe.share_units and recipe.held_share:
        words += [twin_of(word) for word in words]
    model = POYO(
        recipe.spec,
        [unit for s in sessions for unit in s.recording.unit_ids],
        words,
        ffn_dropout=recipe.ffn_dropout,
        lin_dropout=recipe.lin_dropout,
        atn_dropout=recipe.atn_dropout,
        t_min=recipe.t_min,
    )
    filters = dict[str, NamedFilter]()
    if source is not None:
        _begin_with(model, source, sessions)
        filters = begin_with_sessions(model, source, sessions, start_sessions)
        if len(start_sessions) == len(sessions):
            recipe = dataclasses.replace(recipe, identify_epochs=0)
    batches = StepBatches(sessions, recipe, steps=1)
    return Plan(
        recipe=recipe,
        sessions=sessions,
        model=model,
        steps=(
            recipe.steps
            or recipe.steps_per_session * len(sessions)
            or recipe.epochs * batches.steps_per_epoch
        ),
        steps_per_epoch=batches.steps_per_epoch,
        n_windows=batches.n_windows,
        tables=shared_tables(model, sessions, recipe, guess),
        filters=filters,
    )


def _known(sessions: Sequence[TrainingSession], guess: UnitGuess) -> bool:
    """Whether training has seen an electrode of these sessions."""
    keys = set(guess.keys)
    return any(
        electrode_key(s.recording.subject_id, unit) in keys
        for s in sessions
        for unit in s.recording.unit_ids
    )


def _continuing(recipe: Recipe, source: Checkpoint) -> Recipe:
    """The recipe with what belongs to the weights: sizes, periods, the scale of behaviours, and
    what it leaves to how they were trained."""
    scales = {behavior: scale for scale, behavior in readouts_of(source.path).values()}
    data = dict(recipe.data)
    for name, one in recipe.data.items():
        scale = scales.get(one.behavior)
        if not one.scale and scale is not None:
            unit = one.unit or scale.unit
            data[name] = dataclasses.replace(one, scale=scale.scale, offset=scale.offset, unit=unit)
    omega = float(source.weights["rotary_emb.omega"].max())
    t_min = float(f"{2 * math.pi / omega:.6g}") if omega > 0 else recipe.t_min
    left = _as_trained(source, recipe.as_trained)
    return dataclasses.replace(recipe, spec=source.spec, data=data, t_min=t_min, **left)


def _as_trained(source: Checkpoint, keys: Sequence[str]) -> dict[str, Any]:
    """Keys of the recipe that a checkpoint was trained with; those that it does not say are left
    out.

    Raises:
        CheckpointError: a value is of another kind.
    """
    hints, found = field_hints(Recipe), dict[str, Any]()
    for key in keys:
        if key in source.recipe:
            try:
                found[key] = checked(hints[key], source.recipe[key], f"recipe.{key}")
            except FieldError as problem:
                raise CheckpointError(
                    source.path, problem.place, expected=in_words(problem.hint),
                    got=repr(problem.value), do="give that key with --set",
                ) from None  # fmt: skip
    return found


def _begin_with(model: POYO, source: Checkpoint, sessions: Sequence[TrainingSession]) -> None:
    """Give the model the weights of a checkpoint, and the rows of the ids that both know.

    Where units of the checkpoint share embeddings, rows of new ones are what it guesses.
    """
    tables = ("unit_emb.weight", "session_emb.weight")
    shared = {key: value for key, value in source.weights.items() if key not in tables}
    model.load_state_dict(shared, strict=False)
    known = (source.unit_vocab, source.session_vocab)
    if source.guess is not None:
        write_guess(model, sessions, source.guess)
    for key, table, vocab in zip(tables, (model.unit_emb, model.session_emb), known, strict=True):
        _copy_rows(table, source.weights[key], vocab)


@torch.no_grad()
def _copy_rows(table: VocabEmbedding, weight: torch.Tensor, vocab: Mapping[str, int]) -> None:
    for word, row in table.vocab.items():
        if row and word in vocab:
            table.weight[row] = weight[vocab[word]]


def begin_with_sessions(
    model: POYO,
    source: Checkpoint,
    sessions: Sequence[TrainingSession],
    files: Sequence[str | Path],
) -> dict[str, NamedFilter]:
    """Give the model what session files hold of the units and sessions that it is trained on.

    Weights of the encoder that a session has of its own are taken where it is the only one. What
    the filter of a session makes of its spikes stays as it is while a model learns.

    Args:
        model: with the weights of ``source``.
        source: the checkpoint that the sessions were calibrated to.
        sessions: what is trained on.
        files: session files, each of one of them.

    Returns:
        Session → the filter that it mixes with the model, from its file or from the checkpoint;
        none of a session in which something else is learned now.

    Raises:
        SessionError: a file cannot be used, belongs to another model, or is of other units.
        UsageError: a file of no session that is trained on, or two of one.
    """
    behaviors = {behavior for _, behavior in readouts_of(source.path).values() if behavior}
    same = {
        one.session_id for one in sessions if not behaviors or one.recording.behavior in behaviors
    }
    filters = {name: one for name, one in source.filters.items() if name in same}
    if not files:
        return filters
    weights = {name: tensor.numpy() for name, tensor in source.weights.items()}
    core = core_hash(weights, source.spec)
    by_id = {one.session_id: one for one in sessions}
    seen = set[str]()
    for file in files:
        found = Session.open(file, dim=source.spec.dim, core_hash=core)
        name = found.header.session_id
        if name not in by_id or name in seen:
            known = ", ".join([*by_id][:6]) + (", …" if len(by_id) > 6 else "")
            got = f"a second one of {name!r}" if name in seen else f"one of {name!r}"
            raise UsageError(
                f"{file}: session: expected one of a session that is trained on ({known}), once "
                f"each, got {got}"
            )
        seen.add(name)
        rows = _take(model, by_id[name], found, Path(file))
        filters.pop(name, None)
        if found.wiener is not None and name in same:
            mixed = found.wiener.of_units(np.array([*rows.values()], np.int64))
            filters[name] = NamedFilter(unit_ids=tuple(rows), mixed=mixed)
        if found.encoder is not None and len(sessions) == 1:
            _take_encoder(model, found.encoder)
    return filters


@torch.no_grad()
def _take(model: POYO, session: TrainingSession, found: Session, file: Path) -> dict[str, int]:
    """Unit of the recording → its row in the file."""
    row = {unit: i for i, unit in enumerate(found.header.unit_ids)}
    recording = session.recording
    names = zip(recording.unit_ids, unit_names(recording, row), strict=True)
    known = {unit: row[name] for unit, name in names if name in row}
    if not known:
        raise SessionError(
            file, "unit_ids", expected=f"units of {session.session_id}",
            got="none of them", do="calibrate to this recording, or leave --session out",
        )  # fmt: skip
    values = torch.from_numpy(found.unit_embedding[list(known.values())])
    model.unit_emb.weight[model.unit_emb.rows(list(known))] = values
    at = model.session_emb.rows([session.session_id])
    model.session_emb.weight[at] = torch.from_numpy(found.session_embedding)
    return known


@torch.no_grad()
def _take_encoder(model: POYO, encoder: Mapping[str, Float32]) -> None:
    """Types of tokens that no window has keep what the checkpoint has of them."""
    state = model.state_dict()
    back = np.argsort(half_split_order(state["rotary_emb.omega"].numpy()))
    for key, value in encoder.items():
        values = np.asarray(value, np.float64)
        if key == "to_kv":  # a core has the dimensions of its heads in another order
            values = permute_rows(values, back, model.spec.dim_head)
        state[_ENCODER[key]][: len(values)] = torch.from_numpy(values)
