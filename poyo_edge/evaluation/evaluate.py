"""How well checkpoints and artifacts decode recordings: causal and acausal R², beside baselines.

Causal, as a live decoder is judged: at each behaviour sample t the window is [t - T, t), the query
is t, and nothing at or after t is read. Acausal, as the papers judge: windows stepped by T / 2
inside the split, all samples of a window queried, predictions of one sample averaged.

Legend: S samples, Q queries, O outputs, K intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Artifact
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.evaluation.baselines import BASELINES, Labelled
from poyo_edge.evaluation.pretrained_gru import (
    PRETRAINED,
    PretrainedGru,
    decode_session,
    pretrained_on,
)
from poyo_edge.evaluation.torch_decoder import TorchDecoder
from poyo_edge.metrics import r2_per_dim
from poyo_edge.recording.given import require_measured
from poyo_edge.recording.recording import within
from poyo_edge.recording.units import dimension_remarks, require_unit
from poyo_edge.runtime.core import Core
from poyo_edge.spec import ModelSpec, OutputScale, spread_remarks
from poyo_edge.tokens import relative_times
from poyo_edge.training.lazy import LazyRecording, unit_names

PROTOCOLS = ("causal", "acausal")
MODEL, AGAINST = "model", "against"


class WindowDecoder(Protocol):
    """Anything that decodes windows of a recording."""

    spec: ModelSpec
    behavior: str
    """GROUP.KEY, or empty when it is not known."""

    def knows(self, recording: LazyRecording) -> bool:
        """Whether the recording's session is one of its own."""
        ...

    def output(self, recording: LazyRecording) -> OutputScale:
        """Scale and unit of what is decoded of a recording."""
        ...

    def decode(
        self, recording: LazyRecording, windows: Sequence[tuple[float, Float64]]
    ) -> Iterator[Float64]:
        """Behaviour (Q, O) of each window, given by its start and its queries (Q,) in seconds."""
        ...


class ArtifactDecoder:
    """An exported artifact, window by window, without a stream."""

    def __init__(self, path: Path) -> None:
        self._artifact = Artifact.open(path)
        self._core = Core.open(self._artifact)
        self.spec = self._artifact.manifest.spec
        self.behavior = self._artifact.manifest.behavior

    def knows(self, recording: LazyRecording) -> bool:
        """Whether a session file of that id is in the artifact."""
        return recording.session_id in self._artifact.session_files()

    def output(self, recording: LazyRecording) -> OutputScale:
        """See ``WindowDecoder``."""
        return self._artifact.manifest.output

    def decode(
        self, recording: LazyRecording, windows: Sequence[tuple[float, Float64]]
    ) -> Iterator[Float64]:
        """See ``WindowDecoder``."""
        session = self._artifact.session(recording.session_id)
        constants = self._core.constants_of(session)
        place = {name: row for row, name in enumerate(session.header.unit_ids)}
        rows = np.array([place.get(name, -1) for name in unit_names(recording, place)])
        scale, offset = self._artifact.manifest.output.arrays(self.spec.dim_out)
        window_s = self.spec.window_seconds
        for start, queries in windows:
            cut = recording.cut(start, start + window_s)
            units = rows[cut.spike_units].astype(np.int32)
            known = units >= 0
            spike_time = relative_times(cut.spike_times[known], start, window_s)
            query_time = (queries - start).astype(np.float32)
            found = self._core.predict(constants, spike_time, units[known], query_time)
            decoded = found.astype(np.float64) * scale + offset
            if session.wiener is not None:
                decoded = session.wiener.mixed_with(decoded, units[known], spike_time, query_time)
            yield decoded


def open_decoder(path: Path) -> WindowDecoder:
    """A checkpoint or an artifact, by what the path is."""
    return ArtifactDecoder(path) if path.is_dir() else TorchDecoder(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """What is judged, and against what."""

    behavior: str = ""
    """GROUP.KEY; empty takes the model's."""
    split: str = "test"
    within: str = ""
    """An interval of the recordings, like movement_phases.reach_period, to judge in alone."""
    protocols: tuple[str, ...] = PROTOCOLS
    baselines: tuple[str, ...] = tuple(BASELINES)
    pretrain: tuple[Path, ...] = ()
    """Recordings that the pretrained GRU learns first; none takes those that are judged."""
    every: int = 1
    """Judge one of so many samples."""
    seed: int = 0


def evaluate(
    model: str | Path,
    recordings: Sequence[str | Path],
    settings: EvaluationSettings | None = None,
    *,
    against: Sequence[str | Path] = (),
    on_step: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """R² of a model on its sessions, of other models, and of baselines, as JSON values.

    Args:
        model: a checkpoint or an artifact.
        recordings: files; those of sessions that the model does not know are left out.
        settings: what is judged; see ``EvaluationSettings``.
        against: further models, each judged on the sessions that it knows, in one column.
        on_step: called with a sentence before each step, and with what looks odd.
        on_progress: called after each session with how many are done and how many there are.

    Returns:
        JSON values: model, against, behavior, split, within, every, left_out, sessions (each with
        r2 and r2_per_dim by protocol and decoder), subjects.

    Raises:
        UsageError: no recording is of a session that the model knows, or no behaviour is named.
        RecordingError, CheckpointError, ArtifactError: a file cannot be used.
    """
    settings, say = settings or EvaluationSettings(), on_step or (lambda _: None)
    decoder = open_decoder(Path(model))
    others = [open_decoder(Path(path)) for path in against]
    behavior = settings.behavior or decoder.behavior
    if not behavior:
        raise UsageError(
            f"behavior: expected GROUP.KEY, got none, and {model} does not say what it decodes; "
            f"name it with --behavior"
        )
    weights = {settings.within: 1.0} if settings.within else {}
    for path in recordings:
        require_measured(Path(path), behavior)
    opened = [LazyRecording.open(Path(path), behavior, weights) for path in recordings]
    known = [recording for recording in opened if decoder.knows(recording)]
    if not known:
        ids = ", ".join(r.session_id for r in opened[:4]) or "no recordings"
        raise UsageError(
            f"{model}: expected recordings of sessions that it was trained on, got {ids}; give "
            f"others with --data, or calibrate it to them first"
        )
    sessions, pretrained = [], None
    if PRETRAINED in settings.baselines:
        learned = [LazyRecording.open(path, behavior, {}) for path in settings.pretrain] or known
        say(f"pretraining a GRU on {len(learned)} sessions")
        pretrained = pretrained_on(learned, seed=settings.seed, say=say)
    for count, recording in enumerate(known, start=1):
        say(f"decoding {recording.session_id}, {count} of {len(known)}")
        columns = {MODEL: decoder}
        other = next((one for one in others if one.knows(recording)), None)
        if other is not None:
            columns[AGAINST] = other
        sessions.append(_session(recording, columns, settings, pretrained, say))
        if on_progress is not None:
            on_progress(count, len(known))
    return {
        "model": str(model),
        "against": [str(path) for path in against],
        "behavior": behavior,
        "split": settings.split,
        "within": settings.within,
        "every": settings.every,
        "left_out": [r.session_id for r in opened if not decoder.knows(r)],
        "sessions": sessions,
        "subjects": _by_subject(sessions),
    }


def _session(
    recording: LazyRecording,
    decoders: dict[str, WindowDecoder],
    settings: EvaluationSettings,
    pretrained: PretrainedGru | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    times, truth = _judged(recording, settings)
    for decoder in decoders.values():
        _compare_units(recording, truth, decoder.output(recording), say)
    found: dict[str, dict[str, list[float]]] = {protocol: {} for protocol in settings.protocols}
    for protocol in settings.protocols:
        for name, decoder in decoders.items():
            decode = _causal if protocol == "causal" else _acausal
            decoded = decode(decoder, recording, times, recording.domains[settings.split])
            seen = np.isfinite(decoded).all(axis=1)
            found[protocol][name] = r2_per_dim(truth[seen], decoded[seen]).tolist()
    if settings.baselines:
        splits = _labelled(recording, times, truth)
        for protocol in settings.protocols:
            if pretrained is not None and protocol == "causal":
                say(f"fitting the pretrained GRU to {recording.session_id}")
                decoded = decode_session(pretrained, recording, times, seed=settings.seed)
                found[protocol][PRETRAINED] = r2_per_dim(truth, decoded).tolist()
            for name in settings.baselines:
                if name == PRETRAINED:
                    continue
                acausal = protocol == "acausal"
                say(f"fitting {name} to {recording.session_id}, {protocol}")
                decoded = BASELINES[name](*splits, acausal=acausal, seed=settings.seed)
                found[protocol][name] = r2_per_dim(truth, decoded).tolist()
    return {
        "session": recording.session_id,
        "subject": recording.subject_id,
        "n_units": len(recording.unit_ids),
        "n_samples": len(times),
        "r2_per_dim": found,
        "r2": {p: {k: float(np.mean(v)) for k, v in r2.items()} for p, r2 in found.items()},
    }


def _compare_units(
    recording: LazyRecording, truth: Float64, output: OutputScale, say: Callable[[str], None]
) -> None:
    """Refuse behaviour in another unit than the model's, or say that it may be."""
    behavior, unit = recording.behavior, recording.behavior_unit
    require_unit(recording.path, behavior, unit, output)
    for remark in [*dimension_remarks(behavior, unit, output), *spread_remarks(truth, output)]:
        say(f"note: {recording.session_id}: {remark}")


def _judged(recording: LazyRecording, settings: EvaluationSettings) -> tuple[Float64, Float64]:
    split = settings.split
    if split not in recording.domains:
        raise RecordingError(
            recording.path,
            f"{split}_domain",
            expected=f"one of the splits {', '.join(sorted(recording.domains))}",
            got=repr(split),
            do="choose one of them with --split",
        )
    times, truth = recording.samples(recording.domains[split])
    if settings.within:
        inside = within(times, recording.weights[settings.within][0])
        times, truth = times[inside], truth[inside]
    times, truth = times[:: settings.every], truth[:: settings.every]
    if len(times) < 2 or (truth == truth[0]).all(axis=0).any():
        raise RecordingError(
            recording.path,
            f"{split}_domain",
            expected="at least two samples that are not all alike",
            got=f"{len(times)} samples",
            do="choose another split or behaviour, or leave this recording out",
        )
    return times, truth


def _causal(
    decoder: WindowDecoder, recording: LazyRecording, times: Float64, _: Float64
) -> Float64:
    """(S, O) behaviour, each sample from the window before it."""
    window_s = decoder.spec.window_seconds
    return np.concatenate(list(decoder.decode(recording, [(t - window_s, t[None]) for t in times])))


def _acausal(
    decoder: WindowDecoder, recording: LazyRecording, times: Float64, split: Float64
) -> Float64:
    """(S, O) behaviour, averaged over windows; NaN where no whole window fits into the split."""
    window_s = decoder.spec.window_seconds
    starts = _window_starts(split, window_s)
    edges = [np.searchsorted(times, [start, start + window_s]) for start in starts]
    used = [(start, lo, hi) for start, (lo, hi) in zip(starts, edges, strict=True) if hi > lo]
    total = np.zeros((len(times), decoder.spec.dim_out))
    count = np.zeros((len(times), 1))
    windows = [(start, times[lo:hi]) for start, lo, hi in used]
    for (_, lo, hi), decoded in zip(used, decoder.decode(recording, windows), strict=True):
        total[lo:hi] += decoded
        count[lo:hi] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _window_starts(split: Float64, window_s: float) -> list[float]:
    """As torch_brain's ``SequentialFixedWindowSampler`` steps, half a window at a time."""
    starts = []
    for start, end in split:
        if end - start < window_s:
            continue
        found = np.arange(start, end - window_s + 1e-9, window_s / 2)
        starts += [float(x) for x in found]
        if found[-1] + window_s < end - 1e-9:
            starts.append(float(end - window_s))
    return starts


def _labelled(
    recording: LazyRecording, times: Float64, truth: Float64
) -> tuple[Labelled, Labelled, Labelled]:
    """Train, valid and judged samples for the baselines; spikes are read once, for one session."""
    if "train" not in recording.domains:
        raise RecordingError(
            recording.path,
            "train_domain",
            expected="a train split to fit baselines to",
            got="none",
            do="pass --baselines none",
        )
    cut = recording.cut(-np.inf, np.inf)
    base = Labelled(cut.spike_times, cut.spike_units, len(recording.unit_ids), times, truth)
    train = _filled(base, recording, recording.domains["train"])
    if "valid" in recording.domains:
        valid = _filled(base, recording, recording.domains["valid"])
    else:
        last = len(train.times) * 9 // 10
        valid = train._replace(times=train.times[last:], values=train.values[last:])
        train = train._replace(times=train.times[:last], values=train.values[:last])
    return train, valid, base


def _filled(base: Labelled, recording: LazyRecording, split: Float64) -> Labelled:
    times, values = recording.samples(split)
    return base._replace(times=times, values=values)


def _by_subject(sessions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean R² over the sessions of each animal."""
    found = []
    for subject in dict.fromkeys(s["subject"] for s in sessions):
        own = [s for s in sessions if s["subject"] == subject]
        r2: dict[str, dict[str, float]] = {}
        for protocol in own[0]["r2"]:
            tables = [s["r2"][protocol] for s in own]
            names = dict.fromkeys(name for table in tables for name in table)
            r2[protocol] = {
                name: float(np.mean([table[name] for table in tables if name in table]))
                for name in names
            }
        found.append({"subject": subject, "n_sessions": len(own), "r2": r2})
    return found
