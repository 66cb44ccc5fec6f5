"""Reads a POYO checkpoint that torch_brain wrote: weights, vocabularies, sizes, output scale.

Layouts, by the release that wrote them:
    B0  torch_brain before 0.1.0, Lightning, window at the top level of the hyper-parameters
    B1  0.1.0, Lightning, output scale in the hyper-parameters
    B2  0.1.1 and later, Lightning, no output scale
    B3  a bare ``state_dict``, or one without hyper-parameters
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from poyo_edge.checkpoint_config import (
    Layout,
    contradictions,
    is_seconds,
    layout_of,
    output_of,
    time_window,
)
from poyo_edge.checkpoint_file import read_torch_file
from poyo_edge.checkpoint_layout import (
    VOCAB_KEYS,
    OmegaFormula,
    float_tensors,
    foreign_layout,
    omega_formula,
    spec_from_weights,
    vocab_rows,
    wrapper_prefix,
)
from poyo_edge.errors import CheckpointError, UsageError
from poyo_edge.model import NOT_AVAILABLE, POYO
from poyo_edge.spec import ModelSpec, OutputScale

ContainerKind = Literal["lightning", "state_dict"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A research checkpoint, read and checked.

    Attributes:
        path: the file.
        sha256: hash of its bytes, hexadecimal.
        layout: "B0" to "B3" (see the module).
        container: "lightning" when the weights sit under a "state_dict" key, else "state_dict".
        prefix: what training wrappers had put before every key, for example "model.".
        spec: sizes from the shapes, window from the hyper-parameters or arguments.
        weights: key → float32 CPU tensor, torch_brain's keys without the vocabularies.
        unit_vocab: unit id → row of ``unit_emb.weight``, ordered by row; row 0 is "NA".
        session_vocab: session id → row of ``session_emb.weight``, likewise.
        output: from the model's scale to behaviour.
        scaled: whether the file or the caller said what the output scale is.
        notes: what was recognised, assumed or overruled, one sentence each.
        omega_formula: which release computed ``rotary_emb.omega``.
    """

    path: Path
    sha256: str
    layout: Layout
    container: ContainerKind
    prefix: str
    spec: ModelSpec
    weights: dict[str, Tensor]
    unit_vocab: dict[str, int]
    session_vocab: dict[str, int]
    output: OutputScale
    scaled: bool
    notes: tuple[str, ...]
    omega_formula: OmegaFormula

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


def load_checkpoint(
    path: str | Path,
    *,
    sequence_length: float | None = None,
    latent_step: float | None = None,
    output_scale: float | Sequence[float] | None = None,
) -> Checkpoint:
    """Read a checkpoint of torch_brain's POYO without running anything that is in it.

    Args:
        path: the file, a Lightning checkpoint or a saved ``state_dict``.
        sequence_length: window in seconds; wins over the file. Bare files default to 1.0.
        latent_step: seconds between latents; wins over the file. Bare files default to 0.125.
        output_scale: behaviour units per model unit, one number or one per output; wins over
            the file.

    Raises:
        CheckpointError: the file is unreadable, unsafe, of another layout, or inconsistent.
        UsageError: an argument is no number > 0 s, or the scale does not fit the outputs.
    """
    path = Path(path)
    _require_seconds("sequence_length", sequence_length)
    _require_seconds("latent_step", latent_step)
    content, sha256 = read_torch_file(path)
    state, hyper, container = _open(path, content)
    prefix = wrapper_prefix(state)
    state = _stripped(path, state, prefix)
    _refuse_foreign(path, state)
    layout = layout_of(hyper)
    notes = [_recognised(layout, container, prefix)]

    weights = float_tensors(path, state)
    window_s, step_s = time_window(path, hyper, sequence_length, latent_step, notes)
    spec = spec_from_weights(path, weights, window_s, step_s)
    n_rows = [len(weights[key]) for key in ("unit_emb.weight", "session_emb.weight")]
    vocabs = [vocab_rows(path, state, k, n) for k, n in zip(VOCAB_KEYS, n_rows, strict=True)]
    notes += _converted(state) + contradictions(hyper, spec) + _orphans(*map(_ids, vocabs))
    output = output_of(path, hyper, output_scale, spec.dim_out, notes)
    return Checkpoint(
        path=path,
        sha256=sha256,
        layout=layout,
        container=container,
        prefix=prefix,
        spec=spec,
        weights=weights,
        unit_vocab=vocabs[0],
        session_vocab=vocabs[1],
        output=output,
        scaled=output_scale is not None or output != OutputScale(),
        notes=tuple(notes),
        omega_formula=omega_formula(weights["rotary_emb.omega"]),
    )


def _open(path: Path, content: object) -> tuple[dict[str, Any], Mapping[str, Any], ContainerKind]:
    """The ``state_dict``, the hyper-parameters (empty when there are none) and the container."""
    if not isinstance(content, Mapping):
        raise _no_weights(path, type(content).__name__)
    if "model_state_dict" in content:
        raise _foreign(path, "layout F (ibl-bwb trainers, weights under 'model_state_dict')")
    wrapped = "state_dict" in content
    state = content["state_dict"] if wrapped else content
    hyper = content.get("hyper_parameters") if wrapped else None
    if not isinstance(state, Mapping):
        raise _no_weights(path, f"a state_dict that is a {type(state).__name__}")
    if not any(isinstance(value, Tensor) for value in state.values()):
        raise _no_weights(path, f"no tensor under the keys {[str(k) for k in state][:5]}")
    if not all(isinstance(key, str) for key in state):
        raise _no_weights(path, "keys that are not text")
    container: ContainerKind = "lightning" if wrapped else "state_dict"
    return dict(state), hyper if isinstance(hyper, Mapping) else {}, container


def _stripped(path: Path, state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    stripped = {key.removeprefix(prefix): value for key, value in state.items()}
    if len(stripped) != len(state):
        raise _no_weights(path, f"keys that occur both with and without the prefix {prefix!r}")
    return stripped


def _refuse_foreign(path: Path, state: Mapping[str, Any]) -> None:
    layout = foreign_layout(state)
    if layout is not None:
        raise _foreign(path, layout)


def _recognised(layout: Layout, container: ContainerKind, prefix: str) -> str:
    where = {"lightning": "weights under 'state_dict'", "state_dict": "a bare state dict"}[
        container
    ]
    stripped = f"the prefix {prefix!r} was stripped" if prefix else "keys carry no prefix"
    return f"Recognised layout {layout}: {where}; {stripped}."


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


def _owner(unit: str, sessions: Container[str]) -> str | None:
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


def _no_weights(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        path,
        "content",
        expected="a POYO state dict or a Lightning checkpoint",
        got=got,
        do="pass a file written by Lightning or by torch.save(model.state_dict(), PATH)",
    )


def _foreign(path: Path, layout: str) -> CheckpointError:
    return CheckpointError(
        path,
        "layout",
        expected="a single-head POYO with torch_brain's keys (layouts B0 to B3)",
        got=layout,
        do="this layout is not supported yet; pass a POYO checkpoint",
    )
