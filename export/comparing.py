"""Are the graphs what the checkpoint's own model is? Its predictions and gradients say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32
from poyo_edge.artifact import ADAPT, ADAPT_ORT_CPU, CORE, CORE_CPU, CORE_ORT_CPU, Golden
from poyo_edge.errors import UsageError
from poyo_edge.export.folded import FoldedCheckpoint
from poyo_edge.export.parity.adapt import GradientParity, compare_gradients
from poyo_edge.export.parity.core import Parity, Reference, compare, compare_variant
from poyo_edge.export.parity.meter import Progress
from poyo_edge.export.parity.windows import Window, recorded_windows, synthetic_windows
from poyo_edge.recording import Recording
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.ort_native import OrtNativeBackend
from poyo_edge.runtime.constants import session_constants

_GOLDEN_SPIKES = 1000
Step = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was found, and the windows that a device can find it again with."""

    parity: Parity
    gradients: GradientParity
    golden: Golden

    def require(self) -> None:
        """Raise ``CheckFailedError`` unless predictions and gradients agree."""
        self.parity.require()
        self.gradients.require()


def compare_graphs(
    source: FoldedCheckpoint,
    graphs: Mapping[str, bytes],
    recording: Recording | None,
    *,
    say: Step,
    tell: Progress | None,
) -> Comparison:
    """Compare on the session of the recording, or on the one with most units.

    Args:
        source: the checkpoint.
        graphs: file name in the artifact → bytes, of the cores and both graphs of gradients.
        recording: its windows are compared too.
        say: called with a sentence before each step.
        tell: called within a step with what is done and what there is.

    Raises:
        UsageError: the recording is not of a session and of units that the checkpoint knows.
    """
    session_id, units = _session_to_compare(source, recording)
    unit_embedding, session_embedding = source.embeddings(session_id, units)
    spec, unit_vocab = source.checkpoint.spec, source.checkpoint.unit_vocab
    constants = session_constants(spec, source.folded.session, unit_embedding, session_embedding)
    reference = Reference(
        model=source.checkpoint.model(),
        unit_rows=np.array([unit_vocab[unit] for unit in units]),
        session_row=source.session_row(session_id),
    )
    windows = synthetic_windows(spec, len(units))
    if recording is not None:
        windows += recorded_windows(recording, spec)
    say("comparing predictions with the checkpoint's own model")
    plain = OrtCpuBackend(graphs[CORE], threads=1)
    parity, expected = compare(reference, plain, constants, windows, tell=tell)
    say("comparing predictions of the graph for ONNX Runtime")
    variant = OrtCpuBackend(graphs[CORE_ORT_CPU], threads=1)
    parity = compare_variant(parity, reference, variant, constants, windows, expected, tell=tell)
    if CORE_CPU in graphs:
        say("comparing predictions of the graph of our own operators")
        native = OrtNativeBackend(graphs[CORE_CPU], threads=1)
        parity = compare_variant(parity, reference, native, constants, windows, expected, tell=tell)
    short = [len(w.time) <= _GOLDEN_SPIKES and w.kind == "synthetic" for w in windows]
    labelled = [window for window, kept in zip(windows, short, strict=True) if kept][::2]
    say("comparing gradients")
    both = {name: graphs[name] for name in (ADAPT, ADAPT_ORT_CPU)}
    gradients, golden_gradients = compare_gradients(reference, both, labelled, tell=tell)
    golden = Golden(
        unit_embedding=unit_embedding,
        session_embedding=session_embedding,
        windows=tuple(
            _golden_window(window, prediction)
            for window, prediction, kept in zip(windows, expected, short, strict=True)
            if kept
        ),
        tolerance=parity.tolerance,
        gradients=golden_gradients,
    )
    return Comparison(parity=parity, gradients=gradients, golden=golden)


def _session_to_compare(
    source: FoldedCheckpoint, recording: Recording | None
) -> tuple[str | None, Sequence[str]]:
    """Its id and units; some units of no session where the checkpoint names none."""
    known = source.checkpoint.unit_vocab
    if recording is not None:
        if recording.session_id not in source.sessions:
            raise UsageError(
                f"{recording.path}: session: expected one of the checkpoint's sessions "
                f"{list(source.sessions)[:8]}, got {recording.session_id!r}; "
                f"leave --recording out, or name a recording that the model knows"
            )
        units = recording.unit_ids
        unknown = [unit for unit in units if unit not in known]
        if unknown:
            raise UsageError(
                f"{recording.path}: units/id: expected units of the checkpoint, got "
                f"{len(unknown)} others like {unknown[0]!r}"
            )
        return recording.session_id, units
    if source.sessions:
        return max(source.sessions.items(), key=lambda item: len(item[1]))
    return None, [unit for unit in known if unit != "NA"][:200] or ["NA"]


def _golden_window(window: Window, prediction: Float32) -> dict[str, npt.NDArray[Any]]:
    return {
        "spike_time": window.time,
        "spike_unit": window.unit,
        "query_time": window.query,
        "prediction": prediction,
    }
