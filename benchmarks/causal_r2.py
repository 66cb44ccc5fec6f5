"""Does the exported decoder decode a real recording as well as torch_brain's own POYO?

Both decode every sample of a split causally: the window is [t - T, t), the query is t. On one
side a checkpoint is exported, opened and streamed through the runtime. On the other, torch_brain
does everything: it reads the file, slices, tokenises, collates and runs its own forward, once on
float64 times as its pipeline delivers them and once on the same times as float32.

Legend: S samples, O outputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from parts.environment import describe, environment
from parts.oracle import torch_brain_model
from parts.script import markdown, run, say, write_json

from poyo_edge.arrays import Float64
from poyo_edge.checkpoint import Checkpoint, load_checkpoint
from poyo_edge.errors import CheckFailedError
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint
from poyo_edge.metrics import r2_per_dim
from poyo_edge.recording import Recording
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.checks.replay import replay

OURS, FLOAT64, FLOAT32 = "poyo-edge", "torch_brain float64", "torch_brain float32"
PAIRS = ((OURS, FLOAT64), (OURS, FLOAT32), (FLOAT64, FLOAT32))
BATCH = 32
NOTE = """\
torch_brain's pipeline delivers float64 times and computes its angles in float64; poyo-edge
subtracts the start of the window in float64 and then computes in float32. At the fastest rotary
frequency, 62,832 rad/s, float32 rounds time and angle by up to 0.002 rad each: torch_brain
differs from itself that much when its times are cast to float32 (last column). Against those
float32 times poyo-edge differs only by the order of its float32 sums (middle column)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """What each side decoded from one recording."""

    session_id: str
    times: Float64
    """(S,) seconds."""
    truth: Float64
    """(S, O) in behaviour units."""
    decoded: dict[str, Float64]
    """Side → (S, O) in behaviour units."""
    scale: Float64
    """(O,) behaviour units per model unit."""
    seconds: float
    """Wall time of both sides."""

    def r2(self, side: str) -> Float64:
        """R² of each dimension over all samples, (O,)."""
        return r2_per_dim(self.truth, self.decoded[side])

    def difference(self, one: str, other: str) -> dict[str, Any]:
        """R² of ``one`` minus ``other``; absolute differences in the model's scale and in sd."""
        apart = np.abs(self.decoded[one] - self.decoded[other]) / self.scale
        sd = float((self.decoded[FLOAT64] / self.scale).std(0).mean())
        return {
            "r2_difference": (self.r2(one) - self.r2(other)).tolist(),
            "max_abs": float(apart.max()),
            "median_abs": float(np.median(apart)),
            "max_in_output_sd": float(apart.max()) / sd,
            "median_in_output_sd": float(np.median(apart)) / sd,
            "output_sd": sd,
        }

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return {
            "session_id": self.session_id,
            "n_predictions": len(self.times),
            "seconds": round(self.seconds, 1),
            "r2_per_dim": {side: self.r2(side).tolist() for side in self.decoded},
            "differences": {f"{a} - {b}": self.difference(a, b) for a, b in PAIRS},
        }


def main() -> None:
    """Compare, print the tables, write the results file."""
    options = parse()
    torch.set_num_threads(options.threads)
    checkpoint = load_checkpoint(options.checkpoint, output_scale=options.output_scale)
    model = own_model(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder, "causal.poyo")
        scale = tuple(options.output_scale) if options.output_scale else None
        export_checkpoint(
            options.checkpoint, artifact, ExportOptions(output_scale=scale), on_step=say
        )
        found = [compare(checkpoint, model, artifact, path, options) for path in options.recording]
    where = environment(options.threads)
    print(f"{describe(where)}\n\n{r2_table(found)}\n\n{difference_table(found)}\n\n{NOTE}")
    settings = {
        key: getattr(options, key) for key in ("behavior", "split", "every", "whole_windows")
    }
    recordings = [one.to_json() for one in found]
    write_json(options.json, {**where, **settings, "protocol": "causal", "recordings": recordings})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("recording", type=Path, nargs="+")
    parser.add_argument("--behavior", required=True, help="GROUP.KEY, for example cursor.vel")
    parser.add_argument(
        "--output-scale",
        type=float,
        nargs="+",
        help="behaviour units per model unit, if the file does not say",
    )
    parser.add_argument("--split", default="test", help="split of the recording (default: test)")
    parser.add_argument("--every", type=int, default=1, help="judge every Nth sample only")
    parser.add_argument(
        "--whole-windows",
        action="store_true",
        help="judge only samples whose whole window lies in the split",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    for name in ("every", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected an integer >= 1, got {getattr(options, name)}")
    return options


def own_model(checkpoint: Checkpoint) -> Any:
    """torch_brain's POYO with the checkpoint's weights, vocabularies and ω."""
    model = torch_brain_model(checkpoint.spec)
    vocabs = {
        "unit_emb.vocab": dict(checkpoint.unit_vocab),
        "session_emb.vocab": dict(checkpoint.session_vocab),
    }
    model.load_state_dict({**checkpoint.weights, **vocabs})
    return model


def compare(
    checkpoint: Checkpoint, model: Any, artifact: Path, path: Path, options: argparse.Namespace
) -> Comparison:
    """Decode one recording on both sides.

    Raises:
        RecordingError, SessionError: the recording does not fit the checkpoint.
        CheckFailedError: the two sides find other samples or other behaviour in the split.
    """
    say(f"decoding {path.name}")
    started = time.perf_counter()
    recording = Recording.open(path)
    decoder = Decoder.open(artifact, session=recording.session_id)
    ours = replay(decoder, recording, options.behavior, split=options.split)
    data = open_with_torch_brain(path)
    times, truth = samples(data, options.behavior, options.split)
    if not (np.array_equal(times, ours.times) and np.array_equal(truth, ours.truth)):
        raise CheckFailedError(
            f"{path}: {options.behavior}: expected the samples that torch_brain finds in split "
            f"{options.split!r} ({len(times)}), got others ({len(ours.times)})"
        )
    judged = np.arange(len(times))
    if options.whole_windows:
        inside = recording.intervals(options.split)
        judged = judged[starts_within(inside, times, checkpoint.spec.window_seconds)]
    judged = judged[:: options.every]
    scale, offset = checkpoint.output.arrays(checkpoint.spec.dim_out)
    exact, single = predict(model, data, times[judged])
    return Comparison(
        session_id=recording.session_id,
        times=times[judged],
        truth=truth[judged],
        decoded={
            OURS: ours.decoded[judged],
            FLOAT64: exact * scale + offset,
            FLOAT32: single * scale + offset,
        },
        scale=scale,
        seconds=time.perf_counter() - started,
    )


def open_with_torch_brain(path: Path) -> Any:
    """The whole recording as torch_brain's ``Data``, in memory."""
    from torch_brain.data import Data

    return Data.load(path, lazy=False)


def samples(data: Any, behavior: str, split: str) -> tuple[Float64, Float64]:
    """Times (S,) and values (S, O) of a behaviour in a split, as torch_brain selects them."""
    group, _, key = behavior.partition(".")
    series = data.get_nested_attribute(group)
    if hasattr(series, "to_irregular"):
        series = series.to_irregular()
    domain = data.domain if split == "all" else data.get_nested_attribute(f"{split}_domain")
    inside = series.select_by_interval(domain)
    values = np.asarray(getattr(inside, key), np.float64).reshape(len(inside.timestamps), -1)
    finite = np.isfinite(values).all(-1)
    return np.asarray(inside.timestamps[finite], np.float64), values[finite]


def starts_within(intervals: Float64, times: Float64, window_s: float) -> npt.NDArray[np.bool_]:
    """Which times (S,) lie in one of the intervals (K, 2) together with their whole window."""
    starts, ends = intervals[:, 0], intervals[:, 1]
    after_start = times[:, None] - window_s >= starts - 1e-9
    return np.asarray((after_start & (times[:, None] < ends)).any(1))


def predict(model: Any, data: Any, times: Float64) -> tuple[Float64, Float64]:
    """Predictions (S, O) in the model's scale, with float64 times and with float32 times."""
    exact, single = [], []
    with torch.inference_mode():
        for batch in batches(model, data, times):
            exact.append(model(**batch)[:, 0].double().numpy())
            single.append(model(**as_float32(batch))[:, 0].double().numpy())
    return np.concatenate(exact), np.concatenate(single)


def batches(model: Any, data: Any, times: Float64) -> Iterator[dict[str, torch.Tensor]]:
    """Windows [t - T, t) cut, tokenised, padded and masked by torch_brain, each queried at T."""
    from torch_brain.batching import collate

    window_s = model.sequence_length
    query = {"output_timestamps": np.array([window_s])}
    for first in range(0, len(times), BATCH):
        windows = (data.slice(t - window_s, t) for t in times[first : first + BATCH])
        yield collate([{**model.tokenize(window), **query} for window in windows])


def as_float32(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same batch with all times in float32."""
    return {k: v.float() if v.dtype == torch.float64 else v for k, v in batch.items()}


def r2_table(found: list[Comparison]) -> str:
    """R² per dimension of each side, and what separates ours from float64."""
    header = ["session", "samples", *(f"R² {side}" for side in (OURS, FLOAT64, FLOAT32))]
    rows = []
    for one in found:
        r2s = [one.r2(side) for side in (OURS, FLOAT64, FLOAT32)]
        apart = np.abs(r2s[0] - r2s[1]).max()
        cells = [" / ".join(f"{x:.4f}" for x in r2) for r2 in r2s]
        rows.append([one.session_id, len(one.times), *cells, f"{apart:.1e}"])
    return markdown([*header, "largest R² difference to float64"], rows)


def difference_table(found: list[Comparison]) -> str:
    """Absolute differences of predictions: max and median in the model's scale and in sd."""
    header = ["largest (median) difference, model's scale; in output sd"]
    rows = [[one.session_id, *(_cell(one.difference(a, b)) for a, b in PAIRS)] for one in found]
    return markdown([*header, *(f"{a} − {b}" for a, b in PAIRS)], rows)


def _cell(difference: dict[str, Any]) -> str:
    scale = f"{difference['max_abs']:.1e} ({difference['median_abs']:.1e})"
    in_sd = f"{difference['max_in_output_sd']:.1e} ({difference['median_in_output_sd']:.1e})"
    return f"{scale}; {in_sd}"


if __name__ == "__main__":
    run(main)
