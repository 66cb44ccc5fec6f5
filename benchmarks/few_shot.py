"""How many labelled seconds does a new session need, and who needs fewer?

Each session is decoded after 0, 30, … labelled seconds, the first ones of its train split: by an
artifact that is calibrated to them, by a GRU that was pretrained on the same sessions by electrode
and tuned to them, and by decoders that know nothing but them. Judged is causal R² on all samples of
the test split. What has been measured stays in ``--out``; a run that was killed goes on from there.

With --checkpoint, the artifact's, "poyo-tuned" is what ``train finetune`` makes of it on a
workstation: all weights, from the session that ``calibrate`` found, on the same labels.

POYO with 0 seconds is what ``calibrate --labels none --seconds 60`` gives; the pretrained GRU takes
mean and spread of the counts from as many seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parts.environment import describe, environment
from parts.script import markdown, run, say

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Session
from poyo_edge.calibration import CalibratedSession
from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.calibration.from_recording import add_recording, from_unlabelled
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.evaluation.baselines import BASELINES, Labelled
from poyo_edge.evaluation.pretrained_gru import (
    LEAST_UNLABELLED_S,
    PRETRAINED,
    PretrainedGru,
    decode_session,
    pretrained_on,
)
from poyo_edge.files.writing import write_bytes
from poyo_edge.metrics import r2_per_dim
from poyo_edge.recording import Recording
from poyo_edge.recording.recording import first_seconds
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.checks.replay import replay
from poyo_edge.training.lazy import LazyRecording

POYO, TUNED, WIENER = "poyo", "poyo-tuned", "wiener"
NAMES = (POYO, TUNED, PRETRAINED, *BASELINES)
SAID = "options"
"""Key of ``RESULTS`` under which options are kept."""
RESULTS, TABLE, PICTURE = "few_shot.json", "few_shot.md", "few_shot.png"
VALID_SHARE = 0.2
"""Of the labels of a decoder that knows nothing else, by which it stops."""


def main() -> None:
    """Measure what is missing, then write table and picture."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / RESULTS
    cells: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    said = as_said(options)
    apart = {k: v for k, v in cells.get(SAID, {}).items() if said.get(k, v) != v}
    if apart:
        raise UsageError(
            f"--out: expected the options of what is kept in {options.out}, {apart}, got others; "
            f"take another folder"
        )
    cells[SAID] = {**cells.get(SAID, {}), **said}
    opened = list[PretrainedGru]()

    def network() -> PretrainedGru:
        if not opened:
            paths = sorted(options.pretrain.glob("*.h5"))
            say(f"pretraining a GRU on {len(paths)} sessions")
            learned = [LazyRecording.open(path, options.behavior, {}) for path in paths]
            opened.append(pretrained_on(learned, seed=options.seed, say=say))
        return opened[0]

    for path in options.recording:
        for seconds in options.seconds:
            for name in options.decoders:
                key = f"{path.stem}|{name_of(seconds)}|{name}"
                if key in cells or (seconds == 0 and name in (TUNED, *BASELINES)):
                    continue
                began = time.process_time()
                cells[key] = cell(path, seconds, name, options, network)
                cells[key]["cpu_s"] = round(time.process_time() - began, 1)
                write_bytes(kept, json.dumps(cells, indent=1).encode())
                say(f"{key}: {cells[key]}")
    text = f"{describe(environment(1))}\n\n{tables(cells, options)}\n"
    write_bytes(options.out / TABLE, text.encode())
    draw(options.out / PICTURE, cells, options)
    print(text)


def as_said(options: argparse.Namespace) -> dict[str, Any]:
    """The options that figures of one folder have in common, where they were given."""
    names = ("artifact", "checkpoint", "pretrain", "behavior", "split", "seed")
    given = {name: getattr(options, name) for name in names}
    said = {
        k: str(v.resolve()) if isinstance(v, Path) else v for k, v in given.items() if v is not None
    }
    places = {path.stem: str(path.resolve()) for path in options.recording}
    return said | {f"recording {stem}": place for stem, place in places.items()}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("artifact", type=Path, help="of a model that was trained on the sessions in --pretrain")
    add("recording", type=Path, nargs="+", help="sessions that it was not trained on")
    add("--pretrain", type=Path, help="folder of recordings for the pretrained GRU")
    add("--seconds", type=float, nargs="+", default=[0, 30, 60, 120, 300, math.inf],
        help="labelled; inf takes all (default: 0 30 60 120 300 inf)")  # fmt: skip
    add("--checkpoint", type=Path, help="of the artifact, to be tuned")
    add("--decoders", nargs="+", choices=NAMES,
        default=[name for name in NAMES if name != TUNED])  # fmt: skip
    add("--behavior", default="cursor.vel")
    add("--split", default="test", help="to judge on (default: test)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, required=True, help="folder of what was measured")
    options = parser.parse_args()
    if TUNED in options.decoders and options.checkpoint is None:
        parser.error(f"{TUNED}: expected --checkpoint, got none")
    if PRETRAINED in options.decoders and options.pretrain is None:
        parser.error(f"{PRETRAINED}: expected --pretrain, got none")
    return options


def name_of(seconds: float) -> str:
    """Of a column."""
    return "all" if math.isinf(seconds) else f"{seconds:g}"


def cell(
    path: Path, seconds: float, name: str, options: Any, network: Callable[[], PretrainedGru]
) -> dict[str, Any]:
    """R² of one decoder after so many labelled seconds of one session."""
    limit = None if math.isinf(seconds) else seconds
    if name == POYO:
        return poyo_cell(path, limit, options)
    if name == TUNED:
        return tuned_cell(path, limit, options)
    lazy = LazyRecording.open(path, options.behavior, {})
    times, truth = lazy.samples(lazy.domains[options.split])
    if name == PRETRAINED:
        decoded = decode_session(network(), lazy, times, seconds=limit, seed=options.seed)
    else:
        parts = alone(lazy, limit, times, truth, stops=name != WIENER)
        decoded = BASELINES[name](*parts, acausal=False, seed=options.seed)
    return {"r2": float(r2_per_dim(truth, decoded).mean())}


def poyo_cell(path: Path, seconds: float | None, options: Any) -> dict[str, Any]:
    """R² of the artifact with a session that is calibrated, or guessed where there is no label."""
    recording = Recording.open(path)
    found: dict[str, Any] = {}
    session: Session
    if seconds == 0:
        session, known, _ = from_unlabelled(
            options.artifact, recording, split="train", seconds=LEAST_UNLABELLED_S
        )
        found["known_electrodes"] = known
    else:
        session = fitted = calibrated(recording, seconds, options)
        quality = fitted.quality
        found |= {"heldout": quality.r2_heldout, "steps": quality.steps}
        found |= {"wiener_share": quality.wiener_share}
        found["wall_s"] = round(fitted.quality.wall_s, 1)
        try:
            fitted.require_good()
        except CheckFailedError as error:
            found["refused"] = str(error)
    return {"r2": decoded_r2(options.artifact, session, recording, options), **found}


def calibrated(recording: Recording, seconds: float | None, options: Any) -> CalibratedSession:
    """As ``poyo-edge calibrate`` does it; the session stays in ``--out`` for what tunes on."""
    calibrator = Calibrator.open(
        options.artifact,
        recording.unit_ids,
        session_id=recording.session_id,
        subject=recording.subject_id or None,
    )
    add_recording(calibrator, recording, options.behavior, seconds=seconds)
    found = calibrator.fit(seed=options.seed)
    found.save(session_file(recording, seconds, options), force=True)
    return found


def session_file(recording: Recording, seconds: float | None, options: Any) -> Path:
    """Where a calibrated session is kept."""
    folder: Path = options.out / "sessions"
    folder.mkdir(exist_ok=True)
    return folder / f"{recording.session_id}_{name_of(seconds or math.inf)}.session"


def tuned_cell(path: Path, seconds: float | None, options: Any) -> dict[str, Any]:
    """R² of all weights tuned, as ``train finetune --from --session`` does it."""
    from poyo_edge.evaluation.evaluate import EvaluationSettings, evaluate
    from poyo_edge.training import load_recipe, train

    values = [f"seed={options.seed}", "threads=1"]
    if seconds is not None:
        values.append(f"data.recordings.seconds={seconds:g}")
    recipe = load_recipe("finetune", values).with_behavior(options.behavior)
    recording = Recording.open(path)
    begin = session_file(recording, seconds, options)
    if not begin.is_file():
        calibrated(recording, seconds, options)
    with tempfile.TemporaryDirectory() as folder:
        tuned = Path(folder) / "tuned.ckpt"
        began = time.monotonic()
        done = train([path], recipe, tuned, start_from=options.checkpoint, start_sessions=[begin])
        wall_s = round(time.monotonic() - began, 1)
        judged = EvaluationSettings(
            behavior=options.behavior, split=options.split, protocols=("causal",), baselines=()
        )
        found = evaluate(tuned, [path], judged)
    r2 = found["sessions"][0]["r2"]["causal"]["model"]
    return {"r2": r2, "steps": done.steps, "wall_s": wall_s}


def decoded_r2(artifact: Path, session: Session, recording: Recording, options: Any) -> float:
    """Causal R² through the runtime."""
    decoder = Decoder.open(artifact, session=session)
    return replay(decoder, recording, options.behavior, split=options.split).r2


def alone(
    lazy: LazyRecording, seconds: float | None, times: Float64, truth: Float64, *, stops: bool
) -> tuple[Labelled, Labelled, Labelled]:
    """Labels to fit to, to stop by (where it ``stops``, else none are kept apart), and to judge."""
    cut = lazy.cut(-np.inf, np.inf)
    base = Labelled(cut.spike_times, cut.spike_units, len(lazy.unit_ids), times, truth)
    own_times, own = lazy.samples(first_seconds(lazy.domains["train"], seconds))
    last = round(len(own_times) * (1 - VALID_SHARE)) if stops else len(own_times)
    return (
        base._replace(times=own_times[:last], values=own[:last]),
        base._replace(times=own_times[last:], values=own[last:]),
        base,
    )


def rows(cells: dict[str, Any], options: Any) -> Iterator[tuple[str, str, list[float]]]:
    """Session (or "mean"), decoder and its R² for all labelled seconds; NaN where not measured."""
    sessions = [path.stem for path in options.recording]
    by = {
        (one, name): [
            cells.get(f"{one}|{name_of(s)}|{name}", {}).get("r2", math.nan) for s in options.seconds
        ]
        for one in sessions
        for name in options.decoders
    }
    for name in options.decoders:
        yield "mean", name, list(np.mean([by[one, name] for one in sessions], axis=0))
    for one in sessions:
        for name in options.decoders:
            yield one, name, by[one, name]


def tables(cells: dict[str, Any], options: Any) -> str:
    """Means over sessions, then each session."""
    header = ["session", "decoder", *map(name_of, options.seconds)]
    body = [
        [session, name, *("–" if math.isnan(x) else f"{x:.3f}" for x in r2)]
        for session, name, r2 in rows(cells, options)
    ]
    return f"Causal R² by labelled seconds\n\n{markdown(header, body)}"


def draw(path: Path, cells: dict[str, Any], options: Any) -> None:
    """The means against labelled seconds."""
    means = [(name, r2) for session, name, r2 in rows(cells, options) if session == "mean"]
    draw_rows(path, means, [name_of(seconds) for seconds in options.seconds])


def draw_rows(path: Path, means: Sequence[tuple[str, list[float]]], columns: list[str]) -> None:
    """Decoders and their R² in each column of labelled seconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4))
    at = np.arange(len(columns))
    for name, r2 in means:
        axis.plot(at, np.maximum(r2, 0.0), "o-", label=name)
    axis.set_xticks(at, columns)
    axis.set(xlabel="labelled seconds", ylabel="causal R², mean of sessions")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    run(main)
