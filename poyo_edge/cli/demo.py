"""The whole road on simulated recordings, from pretraining to a session nobody has seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.calibration import CalibratedSession, Calibrator
from poyo_edge.calibration.from_recording import add_recording
from poyo_edge.evaluation.baselines import GRU_BINS
from poyo_edge.evaluation.beside import fit_beside
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint
from poyo_edge.recording import Recording
from poyo_edge.reports.page import REPORT_HTML
from poyo_edge.runtime.checks.replay import Replay, draw, replay
from poyo_edge.runtime.checks.verify import verify
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.simulation.array import TICK_HZ
from poyo_edge.simulation.decoding import BinnedDecoding, Decoding, LoopDecoding, WienerDecoding
from poyo_edge.simulation.fitted.from_recording import array_from_recording
from poyo_edge.simulation.observing import Labelled
from poyo_edge.simulation.recordings import Simulation, simulate_study
from poyo_edge.simulation.study import conditions, run_study
from poyo_edge.training import load_recipe, train

KNOWN = 8
"""Sessions that the model is pretrained on: of mixed movements, so that it holds what is held.
Units of all sessions fire richly, so that no decoder has the form of the simulation."""
UNSEEN = 4
"""Number of the session that it has not seen, of reaches: "sim_04", as those who look for it
know it."""
LABELLED_S = 60.0
"""Labelled seconds of the session that is calibrated."""
LATENCIES_MS, RADIUS_CM, TRIALS = (0.0, 100.0), 1.2, 32
"""Of the closed loop, for each decoder."""

Say = Callable[[str], None]
Bar = Callable[[int, int, str], None]


def run_demo(
    folder: str | Path, *, seed: int = 0, steps: int | None = None, say: Say, bar: Bar
) -> dict[str, Any]:
    """Run the demo and return its figures as JSON values.

    Args:
        folder: where recordings, checkpoint and artifact go; older ones are replaced.
        seed: of simulation and training.
        steps: training steps; None takes those of the demo's recipe.
        say: told each step, a sentence.
        bar: told the progress of training and calibration: steps done, steps in all, a note.
    """
    folder = Path(folder)
    say(f"simulating {KNOWN + 1} sessions of motor cortex, each with other units")
    known, unseen = _recordings(folder / "recordings", seed)
    recipe = load_recipe("demo", [f"seed={seed}", *([f"steps={steps}"] if steps else [])])
    behavior = recipe.data["recordings"].behavior
    say(f"pretraining one small POYO on the train splits of {KNOWN} of them, {recipe.steps} steps")
    trained = train(
        known,
        recipe,
        folder / "demo.ckpt",
        on_progress=lambda done, total, loss: bar(done, total, f"loss {loss:.3f}"),
    )
    artifact = folder / "demo.poyo"
    options = ExportOptions(recording=known[-1], behavior=behavior, overwrite=True)
    report = export_checkpoint(trained.checkpoint, artifact, options, on_step=say).to_json()
    say("verifying the artifact on this machine")
    checks = verify(artifact)
    session, played = _new_session(artifact, unseen, behavior, seed, say, bar)
    pictures = draw(folder, played, title=f"{unseen.stem}, calibrated", unit="cm/s")
    path = folder / f"{unseen.stem}.session"
    session.save(path)
    beside = _beside(artifact, session, Recording.open(unseen), behavior, seed, say, bar)
    beside["r2"] = {"poyo": played.to_json()["r2"], **beside["r2"]}
    return {
        **played.to_json(),
        "r2_pretrained": report["replay"]["r2"],
        "calibration": session.quality.to_json(),
        "beside": beside,
        "max_abs_error": report["max_abs_error"],
        "tolerance": report["tolerance"],
        "verified": all(check.ok for check in checks),
        "train_s": round(trained.wall_s, 1),
        "artifact": str(artifact),
        "recording": str(unseen),
        "session": str(path),
        "checkpoint": str(trained.checkpoint),
        "report": str(artifact / REPORT_HTML),
        "pictures": [str(folder / name) for name in pictures],
    }


def _recordings(folder: Path, seed: int) -> tuple[list[Path], Path]:
    """Sessions to pretrain on, and the one to calibrate."""
    mixed = Simulation(motion="mixed", firing="rich")
    reaches = Simulation(firing="rich")
    before = simulate_study(folder, n_sessions=UNSEEN, seed=seed, simulation=mixed)
    (unseen,) = simulate_study(folder, n_sessions=1, seed=seed, first=UNSEEN, simulation=reaches)
    after = simulate_study(
        folder, n_sessions=KNOWN - UNSEEN, seed=seed, simulation=mixed, first=UNSEEN + 1
    )
    return before + after, unseen


def _new_session(
    artifact: Path, unseen: Path, behavior: str, seed: int, say: Say, bar: Bar
) -> tuple[CalibratedSession, Replay]:
    """Calibrate a session that training has not seen, and stream its test split."""
    recording = Recording.open(unseen)
    say(f"a new morning: calibrating {unseen.stem}, whose units the model has never seen")
    calibrator = Calibrator.open(artifact, recording.unit_ids, session_id=recording.session_id)
    add_recording(calibrator, recording, behavior, seconds=LABELLED_S)
    session = calibrator.fit(
        seed=seed, on_progress=lambda p: bar(p.done, p.total, f"held-out R² {p.r2:.3f}")
    )
    say(f"replaying the test split of {unseen.stem} with the new session")
    decoder = Decoder.open(artifact, session=session)
    return session, replay(decoder, recording, behavior)


def _beside(
    artifact: Path,
    session: CalibratedSession,
    recording: Recording,
    behavior: str,
    seed: int,
    say: Say,
    bar: Bar,
) -> dict[str, Any]:
    """The new session beside a Wiener filter and a GRU that learned from the same seconds.

    In the closed loop an array that was fitted to the recording fires from what a simulated person
    intends, and each decoder moves the cursor as it was calibrated: none is tuned.
    """
    say(f"fitting a Wiener filter and a GRU to the same {LABELLED_S:g} labelled s")
    beside = fit_beside(recording, behavior, seconds=LABELLED_S, seed=seed)
    labelled, n_units = beside.labelled, len(recording.unit_ids)
    array = array_from_recording(recording, behavior)
    decoders: list[Decoding] = [
        LoopDecoding(
            Decoder.open(artifact, session=session, tick_rate_hz=TICK_HZ),
            array.unit_ids,
            rate_hz=1 / array.period_s,
        ),
        WienerDecoding.fitted(
            Labelled(
                n_units=n_units,
                spike_times=labelled.spike_times,
                spike_rows=labelled.spike_units,
                times=labelled.times,
                values=labelled.values,
            )
        ),
        BinnedDecoding(
            "gru", lambda counts: beside.gru(counts[None].astype(np.float32))[0], n_units, GRU_BINS
        ),
    ]
    say(f"a simulated person reaches {TRIALS} targets with each of them, at each latency")
    study = run_study(
        lambda _: (array, decoders),
        conditions(LATENCIES_MS, (RADIUS_CM,), (0.0,), (1.0,)),
        n_trials=TRIALS,
        seeds=(seed,),
        on_progress=bar,
    )
    found = study.to_json()
    kept = ("decoder", "latency_ms", "radius_cm", "success", "bits_per_s", "bits_per_s_95")
    return {
        "labelled_s": LABELLED_S,
        "r2": beside.r2,
        "closed_loop": [{name: row[name] for name in kept} for row in found["conditions"]],
        "against": found["against"],
        "trials": TRIALS,
    }
