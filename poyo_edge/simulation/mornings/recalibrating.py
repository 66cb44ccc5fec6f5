"""One recalibration in closed loop: each decoder is controlled with, and fitted again.

The decoder that was fitted to the observation moves the cursor itself for a while. Labels of
intention are made from its own trials and cursor (``calibration.intention``), with the lead that is
found on its own spikes, and each decoder is fitted to the observation and these labels together.
POYO's session passes the gate of ``calibration.gate`` or the one before stays. What the person
intended is never looked at.

Legend: S samples, N spikes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from poyo_edge.artifact import Session
from poyo_edge.calibration import (
    CalibratedSession,
    Calibrator,
    IntentionLabels,
    IntentionSettings,
)
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.simulation.array import TICK_HZ, SimulatedArray
from poyo_edge.simulation.calibrating import Calibration, labels_of, observed
from poyo_edge.simulation.closed_loop import ClosedLoop
from poyo_edge.simulation.decoding import Decoding, KalmanDecoding, LoopDecoding, WienerDecoding
from poyo_edge.simulation.observing import Block, Labelled

_APART_S = 5.0
"""Between the two blocks on the clock of the labels: no window holds both."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """How long, and which labels."""

    seconds: float = 60.0
    labels: IntentionSettings = dataclasses.field(
        default_factory=lambda: IntentionSettings(kind="proportional")
    )

    def __post_init__(self) -> None:
        if not 5 <= self.seconds <= 3600:
            raise UsageError(f"recalibrate_s: expected 5 to 3600 seconds, got {self.seconds!r}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated:
    """What became of one decoder."""

    decoder: str
    success: float
    """Of the trials that gave the labels."""
    labelled_s: float
    lead_s: float | None
    r2: float | None
    """Held-out R² of POYO's session on all labels."""
    taken: bool
    reason: str
    """Why it was not taken, or what was wrong with the labels; "" for nothing."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)


def recalibrated(
    array: SimulatedArray,
    decoders: Sequence[Decoding],
    calibration: Calibration,
    recalibration: Recalibration,
    *,
    seed: int,
) -> tuple[list[Decoding], list[Recalibrated]]:
    """Decoders that were fitted again, and what became of each.

    Args:
        array: what they decode; begins anew.
        decoders: as ``calibrating.calibrated`` gave them for this seed.
        calibration: how they were calibrated.
        recalibration: how they are now.
        seed: of the arrays, the observation and this block.
    """
    before = observed(array, calibration, seed=seed)
    found, told = list[Decoding](), list[Recalibrated]()
    for decoding in decoders:
        new, said = _one(array, decoding, before, calibration, recalibration, seed)
        found.append(new)
        told.append(said)
    return found, told


def _one(
    array: SimulatedArray,
    decoding: Decoding,
    before: Labelled,
    calibration: Calibration,
    recalibration: Recalibration,
    seed: int,
) -> tuple[Decoding, Recalibrated]:
    loop = ClosedLoop(
        array, decoding, task=calibration.task, person=calibration.person, seed=seed + 500
    )
    run = loop.run(seconds=recalibration.seconds)
    success = float(run.trials.success.mean()) if len(run.trials) else 0.0
    nothing = Recalibrated(
        decoder=decoding.name, success=success, labelled_s=0.0, lead_s=None, r2=None, taken=False,
        reason="",
    )  # fmt: skip
    try:
        made = labels_of(run.block(), recalibration.labels)
    except UsageError as error:
        return decoding, dataclasses.replace(nothing, reason=str(error))
    said = dataclasses.replace(
        nothing, labelled_s=made.report.labelled_s, lead_s=made.report.lead_s
    )
    if isinstance(decoding, LoopDecoding):
        return _poyo(array, decoding, before, run.block(), made, calibration, seed, said)
    both = _joined(before, run.block(), made, _shift(before))
    new: Decoding = (
        KalmanDecoding.fitted(both)
        if isinstance(decoding, KalmanDecoding)
        else WienerDecoding.fitted(both)
    )
    return new, dataclasses.replace(said, taken=True)


def _poyo(
    array: SimulatedArray,
    decoding: LoopDecoding,
    before: Labelled,
    block: Block,
    made: IntentionLabels,
    calibration: Calibration,
    seed: int,
    said: Recalibrated,
) -> tuple[Decoding, Recalibrated]:
    in_use = decoding.decoder.session
    session = refitted(in_use, before, block, made, calibration, seed=seed)
    said = dataclasses.replace(said, r2=session.quality.r2_heldout)
    try:
        session.require_good()
    except CheckFailedError as refused:
        return decoding, dataclasses.replace(said, reason=str(refused))
    return decoding_with(session, array, calibration), dataclasses.replace(said, taken=True)


def refitted(
    in_use: Session,
    before: Labelled,
    block: Block,
    made: IntentionLabels,
    calibration: Calibration,
    *,
    seed: int,
) -> CalibratedSession:
    """POYO's session from the observation and the labels of a block, not yet asked whether good.

    A session that was fitted to the observation is judged on the labels of the block alone.

    Args:
        in_use: the session that decoded meanwhile.
        before: labels of the observation.
        block: of the closed loop.
        made: its labels.
        calibration: how decoders are calibrated.
        seed: of the fit.
    """
    shift = _shift(before)
    calibrator = Calibrator.open(
        calibration.artifact,
        block.unit_ids,
        session_id=in_use.header.session_id if calibration.session is None else "recalibrated",
        threads=calibration.threads,
    )
    before.give(calibrator)
    moved = dataclasses.replace(made, times=made.times + shift)
    calibrator.add_intentions(block.spike_times + shift, block.spike_rows, moved)
    return calibrator.fit(seed=seed, in_use=in_use)


def decoding_with(
    session: Session, array: SimulatedArray, calibration: Calibration
) -> LoopDecoding:
    """POYO with a session of the array's units."""
    decoder = Decoder.open(
        calibration.artifact, session=session, backend=calibration.backend,
        threads=calibration.threads, tick_rate_hz=TICK_HZ,
    )  # fmt: skip
    return LoopDecoding(decoder, array.unit_ids, rate_hz=1.0 / array.period_s)


def _shift(before: Labelled) -> float:
    """By how much the block's clock is put after that of the observation."""
    last = before.spike_times[-1] if len(before.spike_times) else 0.0
    return max(float(last), float(before.times[-1])) + _APART_S


def _joined(before: Labelled, block: Block, made: IntentionLabels, shift: float) -> Labelled:
    of = made.labelled & (made.times <= block.spike_times[-1])
    return Labelled(
        n_units=before.n_units,
        spike_times=np.concatenate([before.spike_times, block.spike_times + shift]),
        spike_rows=np.concatenate([before.spike_rows, block.spike_rows]),
        times=np.concatenate([before.times, made.times[of] + shift]),
        values=np.concatenate([before.values, made.values[of]]),
    )
