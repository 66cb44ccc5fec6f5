"""How many windows a second does ``poyo-edge train`` learn from, against torch_brain's own loop?

The other side is the loop of torch_brain's ``examples/poyo/train_simple.py``: its dataset, unit
dropout, sampler, ``POYO.tokenize``, ``collate``, forward, weighted mean square error and a step of
the optimiser. Both train the same size on the same recordings with the same batches, optimiser
class and threads, in turns, in one process. Starting up is not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from parts.environment import describe, environment
from parts.oracle import torch_brain_model
from parts.script import markdown, run, say, write_json
from torch.utils.data import DataLoader
from torch_brain.batching import collate, pad8
from torch_brain.data import Data
from torch_brain.datasets import Dataset, DatasetIndex, SpikingDatasetMixin
from torch_brain.samplers import RandomFixedWindowSampler
from torch_brain.transforms import UnitDropout

from poyo_edge.training import Recipe, load_recipe
from poyo_edge.training.optim import optimizer_and_schedule
from poyo_edge.training.run import fit, make_trainer, quiet_lightning
from poyo_edge.training.start import prepare

OURS, TORCH_BRAIN = "poyo-edge", "torch_brain"
WARM_UP = 2
DROPOUTS = ("ffn", "lin", "atn")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Recordings(SpikingDatasetMixin, Dataset):  # type: ignore[misc]
    """A folder, read by torch_brain, with targets as the example's wrapper makes them."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.model: Any = None
        dropout = recipe.unit_dropout
        drop = None
        if dropout is not None:
            drop = UnitDropout(min_units=dropout[0], mode_units=dropout[1], max_units=dropout[2])
        super().__init__(folder, transform=drop)
        (source,) = recipe.data.values()
        self.split = source.split
        self.group, _, self.key = source.behavior.partition(".")
        self.std = np.asarray(source.scale or (1.0,))

    def get_sampling_intervals(self) -> dict[str, Any]:
        """The split of each recording."""
        return {
            name: getattr(self.get_recording(name), f"{self.split}_domain")
            for name in self.recording_ids
        }

    def __getitem__(self, index: DatasetIndex) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and targets of a window."""
        data: Data = super().__getitem__(index)
        inputs = self.model.tokenize(data)
        series = getattr(data, self.group)
        times, values = series.timestamps, getattr(series, self.key) / self.std
        return inputs, {
            "timestamps": pad8(times.astype(np.float32)),
            "values": pad8(values.astype(np.float32)),
            "weights": pad8(np.ones(len(times), dtype=np.float32)),
            "output_mask": pad8(np.ones(len(times), dtype=bool)),
        }


class Stopwatch(Callback):
    """The clock at the end of each step."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.ticks: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """One step is done."""
        self.ticks.append(self.clock())


def main() -> None:
    """Let both sides take turns; print and write the rates."""
    options = parse()
    torch.set_num_threads(options.threads)
    clock = CLOCKS[options.clock]
    recipe = dataclasses.replace(
        load_recipe(options.recipe, options.set),
        steps=options.steps + WARM_UP,
        epochs=0,
        threads=options.threads,
        workers=options.workers,
        accelerator="cpu",
    )
    sides = {OURS: ours, TORCH_BRAIN: theirs}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.turns):
        for name, side in sides.items():
            step_s = np.diff(side(options.data, recipe, clock)[WARM_UP - 1 :])
            rates[name].append(recipe.batch_size * len(step_s) / float(step_s.sum()))
            say(f"turn {turn + 1}: {name} {rates[name][-1]:.1f} samples/s")
    where = environment(options.threads)
    print(f"{describe(where)}\n\n{table(rates)}")
    settings = {"recipe": recipe.to_json(), "clock": options.clock, "samples_per_s": rates}
    write_json(options.json, {**where, **settings})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of recordings")
    parser.add_argument("--recipe", default="demo", help="name or TOML file (default: demo)")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the recipe")
    parser.add_argument("--steps", type=int, default=10, help="of each turn (default: 10)")
    parser.add_argument("--turns", type=int, default=3, help="of each side (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--workers", type=int, default=0, help="that cut windows (default: 0)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    for name in ("steps", "turns", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected an integer >= 1, got {getattr(options, name)}")
    if options.clock == "cpu" and options.workers:
        parser.error("--clock cpu: expected no workers, whose time it does not see")
    return options


def ours(data: Path, recipe: Recipe, clock: Callable[[], float]) -> list[float]:
    """The clock at the end of each step of ``poyo-edge train``."""
    watch = Stopwatch(clock)
    plan = prepare(data, recipe)
    with quiet_lightning():
        fit(make_trainer(plan, [watch]), plan)
    return watch.ticks


def theirs(data: Path, recipe: Recipe, clock: Callable[[], float]) -> list[float]:
    """The clock at the end of each step of torch_brain's example loop."""
    dataset = Recordings(data, recipe)
    spec = recipe.spec
    dropouts = {f"{name}_dropout": getattr(recipe, f"{name}_dropout") for name in DROPOUTS}
    model = torch_brain_model(spec, **dropouts).train()
    model.init_vocabs(dataset)
    dataset.model = model
    sampler = RandomFixedWindowSampler(
        sampling_intervals=dataset.get_sampling_intervals(), window_length=spec.window_seconds
    )
    loader: DataLoader[Any] = DataLoader(
        dataset,
        sampler=sampler,
        drop_last=True,
        batch_size=recipe.batch_size,
        num_workers=recipe.workers,
        persistent_workers=recipe.workers > 0,
        collate_fn=collate,
    )
    optimizer, schedule = optimizer_and_schedule(model, recipe, recipe.steps)
    ticks: list[float] = []
    while True:
        for inputs, wanted in loader:
            mask = wanted["output_mask"]
            found = model(**inputs, output_timestamps=wanted["timestamps"])[mask]
            error = (found - wanted["values"][mask]).square().mean(dim=-1)
            loss = (error * wanted["weights"][mask]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            ticks.append(clock())
            if len(ticks) == recipe.steps:
                return ticks


def table(rates: dict[str, list[float]]) -> str:
    """Median, spread, and the ratio of the turns."""
    rows = []
    for name, found in rates.items():
        ratios = np.array(rates[OURS]) / np.array(found)
        median, low, high = np.median(found), min(found), max(found)
        rows.append(
            [name, f"{median:.1f}", f"{low:.1f}", f"{high:.1f}", f"{np.median(ratios):.2f}"]
        )
    return markdown(["samples/s", "median", "lowest", "highest", "poyo-edge is faster by"], rows)


if __name__ == "__main__":
    run(main)
