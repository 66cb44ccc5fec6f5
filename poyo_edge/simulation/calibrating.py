"""Decoders that are calibrated on one observation block, with the same labels each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from poyo_edge.artifact import Artifact, Session
from poyo_edge.calibration import CalibratedSession, Calibrator
from poyo_edge.calibration.intention import IntentionLabels, IntentionSettings, intention_labels
from poyo_edge.calibration.lead import with_lead
from poyo_edge.calibration.refusing import FORCE
from poyo_edge.errors import ArtifactError, CheckFailedError
from poyo_edge.recording.units import factor_between
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.simulation.array import TICK_HZ, SimulatedArray
from poyo_edge.simulation.decoding import Decoding, KalmanDecoding, LoopDecoding, WienerDecoding
from poyo_edge.simulation.observing import Block, Labelled, ObservationSettings, observe
from poyo_edge.simulation.person import Person, PersonSettings
from poyo_edge.simulation.tasks import TaskSettings

N_DIMS, CM_S = 2, "cm/s"
_OBSERVE = "or observe for longer (--seconds)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How decoders are calibrated."""

    artifact: Path
    session: Session | str | Path | None = None
    """Of the array's units; None fits one to the observation block."""
    observation: ObservationSettings = dataclasses.field(default_factory=ObservationSettings)
    person: PersonSettings = dataclasses.field(default_factory=PersonSettings)
    task: TaskSettings = dataclasses.field(default_factory=TaskSettings)
    """Its workspace and distance are those that the shown cursor moves in."""
    backend: str = "auto"
    threads: int = 1


def calibrated(
    array: SimulatedArray,
    calibration: Calibration,
    *,
    seed: int,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[Decoding]:
    """POYO, Wiener filter and Kalman filter for an array.

    The array begins anew and a person observes a cursor on the way to random targets. Labels are
    the velocities that were shown, with the lead that is found on the spikes, for all.

    Args:
        array: what they decode.
        calibration: how.
        seed: of the block and of the fit.
        on_progress: called with steps done, steps in all and a note while POYO's session is fitted.

    Raises:
        ArtifactError: the model does not decode two dimensions, or cannot be calibrated.
        CheckFailedError: the session that was fitted is too bad to be used.
        UsageError: a session that is not of the array's units.
    """
    require_plane(calibration.artifact)
    labelled = observed(array, calibration, seed=seed)
    session = calibration.session
    if session is None:
        session = fitted_session(array.unit_ids, labelled, calibration, seed, on_progress)
    decoder = Decoder.open(
        calibration.artifact, session=session, backend=calibration.backend,
        threads=calibration.threads, tick_rate_hz=TICK_HZ,
    )  # fmt: skip
    rate_hz = 1.0 / array.period_s
    return [
        LoopDecoding(decoder, array.unit_ids, rate_hz=rate_hz),
        WienerDecoding.fitted(labelled),
        KalmanDecoding.fitted(labelled),
    ]


def observed(array: SimulatedArray, calibration: Calibration, *, seed: int) -> Labelled:
    """Labels of an observation block of random targets, from the array begun anew.

    They are labels of intention (``calibration.intention``): what was shown in trials, where the
    search of the lead puts it, as a rig that does not know the array's lead has them. No reaction
    time is left out, since the person imagines what is shown while it is shown.

    Raises:
        UsageError: an observation too short for one reach.
    """
    array.restart([seed, 6])
    person = Person(calibration.person, seed=[seed, 7], period_s=array.period_s)
    task = dataclasses.replace(calibration.task, kind="random")
    block = observe(array, person, task, calibration.observation, seed=[seed, 8])
    window_s = Artifact.open(calibration.artifact).manifest.spec.window_seconds
    made = labels_of(block, IntentionSettings(kind="observation", reaction_s=0.0))
    last = block.spike_times[-1] if len(block.spike_times) else 0.0
    of = made.labelled & (made.times >= window_s) & (made.times <= last)
    return Labelled(
        n_units=len(block.unit_ids),
        spike_times=block.spike_times,
        spike_rows=block.spike_rows,
        times=made.times[of],
        values=made.values[of],
        report=made.report,
    )


def labels_of(block: Block, settings: IntentionSettings) -> IntentionLabels:
    """Labels of intention of a block, with the lead that is found on its spikes.

    Raises:
        UsageError: no trial of which labels can be made.
    """
    made = intention_labels(
        block.trials, block.times, block.position, settings, velocity=block.velocity
    )
    return with_lead(made, settings, block.spike_times, block.spike_rows, len(block.unit_ids))


def fitted_session(
    unit_ids: Sequence[str],
    labelled: Labelled,
    calibration: Calibration,
    seed: int,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> CalibratedSession:
    """A session fitted on this machine, as ``poyo-edge calibrate`` fits one.

    Raises:
        CheckFailedError: it is too bad to be used.
    """
    report = on_progress or (lambda done, total, note: None)
    calibrator = Calibrator.open(
        calibration.artifact, unit_ids, session_id="observed", threads=calibration.threads
    )
    labelled.give(calibrator)
    session = calibrator.fit(
        seed=seed,
        max_seconds=math.inf,
        on_progress=lambda p: report(p.done, p.total, f"held-out R² {p.r2:.3f}"),
    )
    try:
        session.require_good()
    except CheckFailedError as error:  # There is no session file that could be forced.
        raise CheckFailedError(f"{str(error).removesuffix(FORCE)}{_OBSERVE}") from None
    return session


def require_plane(artifact: Path) -> None:
    """Refuse a model whose values cannot move a cursor in a plane, in centimetres.

    Raises:
        ArtifactError: with the number of dimensions that it decodes, or their unit.
    """
    manifest = Artifact.open(artifact).manifest
    dim_out, unit = manifest.spec.dim_out, manifest.output.unit
    factor = factor_between(unit, CM_S)
    if factor is not None and factor != 1.0:
        raise ArtifactError(
            artifact,
            "unit",
            expected=f"a model that decodes {CM_S}, as targets and the person are in cm",
            got=unit,
            do=f"export it again with --output-scale times {factor:g} and --behavior-unit {CM_S}",
        )
    if dim_out != N_DIMS:
        raise ArtifactError(
            artifact,
            "dim_out",
            expected=f"a model that decodes a velocity of {N_DIMS} dimensions",
            got=f"{dim_out}",
            do="take the artifact of a model of cursor velocity",
        )
