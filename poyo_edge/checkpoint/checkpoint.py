"""Reads a POYO checkpoint that torch_brain wrote: weights, vocabularies, sizes, output scale.

It goes one way, each stage with what the one before it found: ``file`` (bytes → plain content),
``container`` (weights and hyper-parameters), ``family`` (layout, today's keys, tasks), ``sizes``
and ``config`` (shapes, window, output scale). ``layouts`` is the table of what can be read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container as Collection
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from poyo_edge.checkpoint.additions import filters_of, guess_of
from poyo_edge.checkpoint.config import (
    contradictions,
    is_seconds,
    output_of,
    time_window,
)
from poyo_edge.checkpoint.container import Container, ContainerKind, open_container
from poyo_edge.checkpoint.family import Family, family_of
from poyo_edge.checkpoint.file import read_checkpoint_file
from poyo_edge.checkpoint.keys import OMEGA, SESSION_TABLE, UNIT_TABLE, VOCAB_KEYS
from poyo_edge.checkpoint.poyo_plus import with_one_task
from poyo_edge.checkpoint.sizes import (
    OmegaFormula,
    float_tensors,
    omega_formula,
    spec_from_weights,
    vocab_rows,
)
from poyo_edge.errors import UsageError
from poyo_edge.filters.named import NamedFilter
from poyo_edge.model import NOT_AVAILABLE, POYO
from poyo_edge.spec import ModelSpec, OutputScale
from poyo_edge.unit_guess import UnitGuess


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A research checkpoint, read and checked.

    Attributes:
        path: the file.
        sha256: hash of its bytes, hexadecimal.
        layout: its name in the table of layouts, "A1" to "F".
        container: "lightning", "state_dict", "model_state_dict" or "safetensors".
        prefix: what training wrappers had put before every key, for example "model.".
        spec: sizes from the shapes, window from the hyper-parameters or arguments.
        weights: key → float32 CPU tensor, torch_brain's keys without the vocabularies.
        unit_vocab: unit id → row of ``unit_emb.weight``, ordered by row; row 0 is "NA".
        session_vocab: session id → row of ``session_emb.weight``, likewise.
        output: from the model's scale to behaviour.
        scaled: whether the file or the caller said what the output scale is.
        task: of a POYO+, the task whose readout was taken; "" for a POYO.
        tasks: all tasks of a POYO+; empty for a POYO.
        notes: what was recognised and why, assumed or overruled, one sentence each.
        omega_formula: which release computed ``rotary_emb.omega``.
        guess: what it says of units that it has not seen, if units share embeddings in it.
        recipe: how it says that it was trained, unchecked; empty where it does not.
        filters: session id → the Wiener filter that is mixed with what is decoded of it.
    """

    path: Path
    sha256: str
    layout: str
    container: ContainerKind
    prefix: str
    spec: ModelSpec
    weights: dict[str, Tensor]
    unit_vocab: dict[str, int]
    session_vocab: dict[str, int]
    output: OutputScale
    scaled: bool
    task: str
    tasks: tuple[str, ...]
    notes: tuple[str, ...]
    omega_formula: OmegaFormula
    guess: UnitGuess | None = None
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    filters: Mapping[str, NamedFilter] = dataclasses.field(default_factory=dict)

    def model(self) -> POYO:
        """The model with these weights, in eval mode; ``omega`` is the file's own."""
        model = POYO(self.spec, _ids(self.unit_vocab), _ids(self.session_vocab))
        vocabs = zip(VOCAB_KEYS, (self.unit_vocab, self.session_vocab), strict=True)
        model.load_state_dict({**self.weights, **dict(vocabs)}, strict=True)
        return model.eval()

    def session_units(self) -> dict[str, tuple[str, ...]]:
        """Session id → ids of its units, both ordered by row.

        A unit belongs to the longest session id that, with a "/", begins its own id. With a
        single session and no such unit, all units are its own; units of no session are left out.
        """
        return _session_units(_ids(self.unit_vocab), _ids(self.session_vocab))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCheckpoint:
    """A checkpoint file whose layout is known, on the way to a model."""

    path: Path
    container: Container
    family: Family

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of a POYO+, of which one has to be named; empty for a POYO."""
        return tuple(self.family.tasks)

    @property
    def layout(self) -> str:
        """Its name in the table of layouts, "A1" to "F"."""
        return self.family.layout

    @property
    def why(self) -> str:
        """One sentence: the layout, and what it was recognised by."""
        family = self.family
        plus = f", POYO+ with the tasks {', '.join(family.tasks)}" if family.tasks else ""
        what = f"{family.layout} by {family.because}{plus}"
        return f"Recognised layout {what}: {self.container.where}."

    def load(
        self,
        *,
        sequence_length: float | None = None,
        latent_step: float | None = None,
        output_scale: float | Sequence[float] | None = None,
        task: str | None = None,
    ) -> Checkpoint:
        """The model in the file: see ``load_checkpoint``."""
        path, hyper = self.path, self.container.hyper
        _require_seconds("sequence_length", sequence_length)
        _require_seconds("latent_step", latent_step)
        state, task = with_one_task(path, self.family.state, self.family.tasks, task)
        notes = [self.why]
        if task:
            notes.append(
                f"Took the readout of task {task!r} and added row {self.family.tasks[task]} of "
                "the task table to every session's row."
            )
        weights = float_tensors(path, state)
        window_s, step_s = time_window(path, hyper, sequence_length, latent_step, notes)
        spec = spec_from_weights(path, weights, window_s, step_s)
        n_rows = [len(weights[key]) for key in (UNIT_TABLE, SESSION_TABLE)]
        vocabs = [vocab_rows(path, state, k, n) for k, n in zip(VOCAB_KEYS, n_rows, strict=True)]
        notes += _converted(self.family.state) + contradictions(hyper, spec)
        notes += _orphans(*map(_ids, vocabs))
        output = output_of(path, hyper, output_scale, spec.dim_out, notes, task)
        filters = filters_of(path, hyper, spec.dim_out)
        notes += [
            f"Session {name!r} mixes a Wiener filter in, {one.mixed.share:.0%} of each value."
            for name, one in filters.items()
        ]
        return Checkpoint(
            path=path,
            sha256=self.container.sha256,
            layout=self.layout,
            container=self.container.kind,
            prefix=self.container.prefix,
            spec=spec,
            weights=weights,
            unit_vocab=vocabs[0],
            session_vocab=vocabs[1],
            output=output,
            scaled=output_scale is not None or output != OutputScale(),
            task=task,
            tasks=self.tasks,
            notes=tuple(notes),
            omega_formula=omega_formula(weights[OMEGA]),
            guess=guess_of(path, hyper, spec.dim),
            recipe=recipe if isinstance(recipe := hyper.get("recipe"), Mapping) else {},
            filters=filters,
        )


def open_checkpoint(path: str | Path, *, vocab: str | Path | None = None) -> OpenedCheckpoint:
    """Open a checkpoint file and recognise its layout, without running anything that is in it.

    Args:
        path: the file.
        vocab: JSON with the vocabularies of a file that has none; None looks beside the file.

    Raises:
        CheckpointError: unreadable, unsafe, or of a layout that cannot be exported.
    """
    path = Path(path)
    file = read_checkpoint_file(path)
    container = open_container(path, file, None if vocab is None else Path(vocab))
    family = family_of(path, container)
    return OpenedCheckpoint(path=path, container=container, family=family)


def load_checkpoint(
    path: str | Path,
    *,
    sequence_length: float | None = None,
    latent_step: float | None = None,
    output_scale: float | Sequence[float] | None = None,
    task: str | None = None,
    vocab: str | Path | None = None,
) -> Checkpoint:
    """Read a checkpoint of torch_brain's POYO without running anything that is in it.

    Args:
        path: the file, a Lightning checkpoint, a saved ``state_dict``, or safetensors.
        sequence_length: window in seconds; wins over the file. Bare files default to 1.0.
        latent_step: seconds between latents; wins over the file. Bare files default to 0.125.
        output_scale: behaviour units per model unit, one number or one per output; wins over
            the file.
        task: the task of a POYO+; None takes the only one.
        vocab: JSON with the vocabularies of a file that has none; None looks beside the file.

    Raises:
        CheckpointError: the file is unreadable, unsafe, of another layout, or inconsistent.
        UsageError: an argument is no number > 0 s, the scale does not fit the outputs, or the
            task is not one of the file's.
    """
    _require_seconds("sequence_length", sequence_length)
    _require_seconds("latent_step", latent_step)
    opened = open_checkpoint(path, vocab=vocab)
    return opened.load(
        sequence_length=sequence_length,
        latent_step=latent_step,
        output_scale=output_scale,
        task=task,
    )


def _converted(state: Mapping[str, Any]) -> list[str]:
    dtypes = {str(v.dtype) for v in state.values() if isinstance(v, Tensor)} - {"torch.float32"}
    if not dtypes:
        return []
    return [f"Weights stored as {', '.join(sorted(dtypes))} were converted to float32."]


def _ids(vocab: Mapping[str, int]) -> list[str]:
    return [word for word in vocab if word != NOT_AVAILABLE]


def _session_units(units: Sequence[str], sessions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {session: [] for session in sessions}
    for unit in units:
        owner = _owner(unit, found)
        if owner is not None:
            found[owner].append(unit)
    if len(sessions) == 1 and not found[sessions[0]]:
        found[sessions[0]] = list(units)
    return {session: tuple(ids) for session, ids in found.items()}


def _owner(unit: str, sessions: Collection[str]) -> str | None:
    head = unit
    while "/" in head:
        head = head.rpartition("/")[0]
        if head in sessions:
            return head
    return None


def _orphans(units: Sequence[str], sessions: Sequence[str]) -> list[str]:
    assigned = {unit for ids in _session_units(units, sessions).values() for unit in ids}
    orphans = [unit for unit in units if unit not in assigned]
    if not orphans:
        return []
    return [f"{len(orphans)} units match no session and belong to none, first {orphans[0]!r}."]


def _require_seconds(name: str, value: float | None) -> None:
    if value is not None and not is_seconds(value):
        raise UsageError(f"{name}: expected seconds > 0, got {value!r}")
