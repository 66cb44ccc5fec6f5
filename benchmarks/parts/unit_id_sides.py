"""The sides of ``unit_id.py``: torch_brain's unit identification, ours, and a Wiener filter.

Legend: S samples, O outputs, U units, K intervals, F features.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from causal_r2 import batches, open_with_torch_brain, starts_within

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Artifact
from poyo_edge.calibration import Calibrator, FitSettings
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.fitting import Fit as OurFit
from poyo_edge.calibration.fit.folds import everything
from poyo_edge.calibration.fit.labels import LabelCollector
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.start import first_guess
from poyo_edge.calibration.from_recording import add_recording
from poyo_edge.checkpoint import Checkpoint
from poyo_edge.errors import CheckpointError, UsageError
from poyo_edge.filters.wiener import BIN_S, BINS, bin_counts, fit_ridge
from poyo_edge.metrics import r2_per_dim
from poyo_edge.recording import Behavior, Recording
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.checks.replay import replay

TORCH_BRAIN, WIENER, OURS = "torch_brain", "wiener", "poyo-edge"
BATCH = 32
MOST_WALL_S = 600.0
"""What one fit of ours may take where nothing else is said."""

Batch = dict[str, torch.Tensor]
Point = dict[str, Any]
"""R² of each output on the judged split, and after what: steps, seconds, loss, ridge strength."""
Fit = dict[str, Any]
"""Recording and job, wall time and points of one fit."""


class Job(NamedTuple):
    """One fit to make; only torch_brain has learning rates and steps to be judged at."""

    side: str
    seconds: float
    seed: int
    lr: float
    steps: tuple[int, ...]
    most_wall_s: float = MOST_WALL_S
    """What one fit of ours may take."""

    def __str__(self) -> str:
        steps = ", ".join(map(str, self.steps))
        within = f" within {self.most_wall_s:g} s" if self.most_wall_s != MOST_WALL_S else ""
        with_lr = f" lr {self.lr:g} at steps {steps}" if self.steps else ""
        return f"{self.side} {self.seconds:g} s seed {self.seed}{with_lr}{within}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NewSession:
    """A recording that the checkpoint does not know, and what the sides need of it."""

    path: Path
    checkpoint: Checkpoint
    key: str
    """GROUP.KEY of the behaviour."""
    split: str
    artifact: Path
    """Where the checkpoint is exported to."""

    @cached_property
    def recording(self) -> Recording:
        """The recording, read once.

        Raises:
            RecordingError: it cannot be read.
            UsageError: the checkpoint was trained on it.
        """
        recording = Recording.open(self.path)
        if recording.session_id in self.checkpoint.session_vocab:
            raise UsageError(
                f"{self.path}: expected a session that the checkpoint does not know, "
                f"got {recording.session_id!r}, which it was trained on; choose another recording"
            )
        return recording

    @cached_property
    def behavior(self) -> Behavior:
        """All samples of the behaviour."""
        return self.recording.behavior(self.key)

    @cached_property
    def data(self) -> Any:
        """The recording as torch_brain's ``Data``, in memory."""
        return open_with_torch_brain(self.path)

    @cached_property
    def judged(self) -> npt.NDArray[np.int64]:
        """Samples of the split."""
        return np.flatnonzero(self.recording.within(self.behavior.times, self.split))

    @cached_property
    def windows(self) -> list[Batch]:
        """torch_brain's inputs for all judged samples, the same for each ``new_model``."""
        return list(batches(new_model(self, seed=0), self.data, self.behavior.times[self.judged]))

    @cached_property
    def counts(self) -> npt.NDArray[np.float32]:
        """Spikes of each unit in the ``BINS`` bins that end at each behaviour sample, (S, F)."""
        recording = self.recording
        n_units = len(recording.unit_ids)
        counts = bin_counts(
            recording.spike_times, recording.spike_units, n_units, self.behavior.times
        )
        return counts.reshape(len(counts), -1)

    def labels(self, seconds: float) -> Float64:
        """Intervals (K, 2) of the first seconds of the train split.

        Raises:
            UsageError: the split is shorter.
        """
        train = self.recording.intervals("train")
        until = np.cumsum(train[:, 1] - train[:, 0])
        if until[-1] < seconds:
            raise UsageError(
                f"--seconds: expected at most the {until[-1]:.0f} s of the train split of "
                f"{self.recording.session_id}, got {seconds:g}; ask for less"
            )
        ends = train[:, 1] - np.maximum(until - seconds, 0.0)
        return np.stack([train[:, 0], ends], axis=-1)[ends > train[:, 0]]

    def point(self, decoded: Float64, **after: Any) -> Point:
        """R² of what was decoded at the judged samples, (judged, O) in behaviour units."""
        r2 = r2_per_dim(self.behavior.values[self.judged], decoded)
        return {**after, "r2_per_dim": r2.tolist()}


def fit_torch_brain(session: NewSession, job: Job) -> list[Point]:
    """torch_brain's unit identification: AdamW without a schedule, judged at ``job.steps``."""
    model = new_model(session, job.seed)
    step = optimiser_step(model, job.lr)
    drawn = training_batches(session, model, session.labels(job.seconds), job.seed)
    scale, offset = session.checkpoint.output.arrays(session.checkpoint.spec.dim_out)
    points: list[Point] = []
    losses: list[float] = []
    fit_s = 0.0
    for last in job.steps:
        started = time.perf_counter()
        losses += [step(batch) for batch in itertools.islice(drawn, last - len(losses))]
        fit_s += time.perf_counter() - started
        model.eval()
        with torch.inference_mode():
            decoded = [model(**batch)[:, 0].double().numpy() for batch in session.windows]
        after = {"steps": last, "loss": float(np.mean(losses[-20:])), "fit_s": round(fit_s, 1)}
        points.append(session.point(np.concatenate(decoded) * scale + offset, **after))
    return points


def new_model(session: NewSession, seed: int) -> Any:
    """torch_brain's POYO with new rows for this session's units, all but the tables frozen.

    Raises:
        CheckpointError: torch_brain cannot open the checkpoint by itself.
    """
    from torch_brain.models import POYO

    path, layout = session.checkpoint.path, session.checkpoint.layout
    if layout not in ("B1", "B2"):
        expected = "those of the model, from which POYO.load_pretrained builds it"
        do = "give a Lightning checkpoint of torch_brain 0.1 or of poyo-edge, or other --side"
        raise CheckpointError(
            path, "hyper_parameters", expected=expected, got=f"layout {layout}", do=do
        )
    torch.manual_seed(seed)
    model = POYO.load_pretrained(path).requires_grad_(False)
    units, sessions = list(session.recording.unit_ids), [session.recording.session_id]
    for table, words in ((model.unit_emb, units), (model.session_emb, sessions)):
        table.extend_vocab(words)
        table.subset_vocab(words)
        table.requires_grad_(True)
    return model


def optimiser_step(model: Any, lr: float) -> Callable[[Batch], float]:
    """Forward, backward and AdamW on the two tables; returns the loss of the batch."""
    tables = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(tables, lr=lr)

    def step(batch: Batch) -> float:
        model.train()
        inputs = {name: v for name, v in batch.items() if not name.startswith("target")}
        error = (model(**inputs) - batch["target"]).square()[batch["target_mask"]].mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        return float(error.detach())

    return step


def training_batches(
    session: NewSession, model: Any, labels: Float64, seed: int
) -> Iterator[Batch]:
    """Random windows of torch_brain's sampler, epoch after epoch, with all their samples."""
    from torch_brain.batching import collate, pad8, track_mask8
    from torch_brain.data import Interval
    from torch_brain.samplers import RandomFixedWindowSampler

    sampler = RandomFixedWindowSampler(
        sampling_intervals={"": Interval(start=labels[:, 0].copy(), end=labels[:, 1].copy())},
        window_length=session.checkpoint.spec.window_seconds,
        generator=torch.Generator().manual_seed(seed),
    )
    scale, offset = session.checkpoint.output.arrays(session.checkpoint.spec.dim_out)
    times, values = session.behavior.times, session.behavior.values

    def tokenize(start: float, end: float) -> dict[str, Any]:
        inside = slice(*np.searchsorted(times, [start, end]))
        target = ((values[inside] - offset) / scale).astype(np.float32)
        targets = {"target": pad8(target), "target_mask": track_mask8(target[:, 0])}
        tokens = model.tokenize(session.data.slice(start, end))
        return {**tokens, **targets, "output_timestamps": pad8(times[inside] - start)}

    windows = itertools.chain.from_iterable(itertools.repeat(sampler))
    while True:
        yield collate([tokenize(w.start, w.end) for w in itertools.islice(windows, BATCH)])


def fit_wiener(session: NewSession, job: Job) -> list[Point]:
    """Ridge regression on binned spikes; its strength by cross-validation on blocks of time."""
    inside = starts_within(session.labels(job.seconds), session.behavior.times, BINS * BIN_S)
    x, y = session.counts[inside].astype(np.float64), session.behavior.values[inside]
    weights, bias, ridge = fit_ridge(x, y, session.behavior.times[inside])
    return [session.point(session.counts[session.judged] @ weights + bias, ridge=ridge)]


def fit_ours(session: NewSession, job: Job) -> list[Point]:
    """``Calibrator`` on the same labels, one stretch after the other, then ``replay``."""
    recording, started = session.recording, time.perf_counter()
    calibrator = Calibrator.open(
        session.artifact,
        recording.unit_ids,
        session_id=recording.session_id,
        subject=recording.subject_id or None,
        threads=torch.get_num_threads(),
    )
    add_recording(calibrator, recording, session.key, seconds=job.seconds)
    fitted = calibrator.fit(max_seconds=job.most_wall_s, seed=job.seed)
    fit_s = round(time.perf_counter() - started, 1)
    decoder = Decoder.open(session.artifact, session=fitted)
    replayed = replay(decoder, recording, session.key, split=session.split)
    curve = [point.to_json() for point in fitted.quality.curve]
    after = {"steps": fitted.header.steps, "fit_s": fit_s, "curve": curve}
    return [session.point(replayed.decoded, **after, r2_heldout=fitted.quality.r2_heldout)]


FITTERS = {TORCH_BRAIN: fit_torch_brain, WIENER: fit_wiener, OURS: fit_ours}
"""Side → what fits a session."""


def torch_brain_stepper(session: NewSession, _: int) -> Callable[[], object]:
    """One optimiser step of torch_brain on one batch of windows, tokens ready-made."""
    model = new_model(session, seed=0)
    step = optimiser_step(model, lr=1e-3)
    batch = next(training_batches(session, model, session.labels(60.0), seed=0))
    return lambda: step(batch)


def our_stepper(session: NewSession, threads: int) -> Callable[[], object]:
    """One step of ours on as many windows of the same labels; its tokens are cut each time."""
    artifact = Artifact.open(session.artifact)
    adapter, recording = Adapter(artifact, threads=threads), session.recording
    spec = artifact.manifest.spec
    collector = LabelCollector(recording.unit_ids, spec.dim_out, spec.window_seconds)
    for stretch in session.labels(60.0):
        spikes = slice(*np.searchsorted(recording.spike_times, stretch))
        samples = slice(*np.searchsorted(session.behavior.times, stretch))
        collector.add(
            recording.spike_times[spikes],
            recording.spike_units[spikes],
            session.behavior.times[samples],
            session.behavior.values[samples],
        )
    labels, prior = collector.labels(), Prior.open(artifact)
    start = first_guess(artifact, prior, recording.unit_ids)
    settings = FitSettings(steps=10**6, batch_size=BATCH)
    return OurFit(adapter, prior, labels, everything(labels), settings, start, seed=[0]).step


STEPPERS = {TORCH_BRAIN: torch_brain_stepper, OURS: our_stepper}
"""Side → what makes a step of it ready to be repeated."""
