"""What several folders of few_shot.py say together: of other seeds, and of sessions that were each
left out of a pretraining of their own.

A cell is of one session, seed, decoder and number of labelled seconds. A session's figure is the
mean of its seeds, the mean is that of the sessions; only seeds that all decoders have count, so
that each decoder is judged on the same. A cell that two folders have is refused.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from few_shot import PICTURE, RESULTS, SAID, TABLE, draw_rows, name_of
from parts.script import markdown, run

from poyo_edge.errors import UsageError
from poyo_edge.files.writing import write_bytes

MEAN = "mean"


class Cell(NamedTuple):
    """Which figure it is."""

    session: str
    seed: int
    decoder: str
    seconds: str


def main() -> None:
    """Print the table, write it and the picture where ``--out`` says."""
    options = parse()
    cells = cells_of(options.folder)
    columns = [name_of(seconds) for seconds in options.seconds]
    rows = [*rows_of(cells, options.decoders, columns)]
    text = tables(cells, rows, options.decoders, columns)
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_bytes(options.out / TABLE, f"{text}\n".encode())
        draw_rows(options.out / PICTURE, [(n, r2) for s, n, r2 in rows if s == MEAN], columns)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", type=Path, nargs="+", help="what few_shot.py was given as --out")
    add("--decoders", nargs="+", default=["poyo", "poyo-tuned", "gru-pretrained"],
        help="the last is what the others are compared with")  # fmt: skip
    add("--seconds", type=float, nargs="+", default=[0, 30, 60, 120, 300, np.inf])
    add("--out", type=Path, help="folder for table and picture")
    return parser.parse_args()


def cells_of(folders: list[Path]) -> dict[Cell, float]:
    """R² of each cell.

    Raises:
        UsageError: a folder of nothing measured, figures of another behaviour or split, or a cell
            that two folders have.
    """
    found: dict[Cell, float] = {}
    place: dict[Cell, Path] = {}
    judged = dict[str, Path]()
    for folder in folders:
        if not (folder / RESULTS).is_file():
            raise UsageError(
                f"{folder}: expected {RESULTS} in it, got none; name what few_shot.py was given as "
                f"--out"
            )
        kept: dict[str, Any] = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        said = kept.pop(SAID)
        seed = said["seed"]
        judged[f"{said['behavior']} of the split {said['split']}"] = folder
        if len(judged) > 1:
            raise UsageError(
                f"{folder}: expected figures of the same behaviour and split, got {[*judged]}; "
                f"leave some of them out"
            )
        for key, value in kept.items():
            session, seconds, decoder = key.split("|")
            cell = Cell(session, seed, decoder, seconds)
            if cell in found:
                raise UsageError(
                    f"{folder}: {key}, seed {seed}: expected it in one folder, got it in "
                    f"{place[cell]} too; leave one of them out"
                )
            found[cell], place[cell] = value["r2"], folder
    return found


def rows_of(
    cells: dict[Cell, float], decoders: list[str], columns: list[str]
) -> Iterator[tuple[str, str, list[float]]]:
    """Session (or "mean"), decoder, and its R² for all labelled seconds; NaN where some lack."""
    sessions = sorted({cell.session for cell in cells})
    of = {
        (one, name): [_r2(cells, one, name, decoders, seconds) for seconds in columns]
        for one in sessions
        for name in decoders
    }
    for name in decoders:
        yield MEAN, name, list(np.mean([of[one, name] for one in sessions], axis=0))
    for one in sessions:
        for name in decoders:
            yield one, name, of[one, name]


def _r2(
    cells: dict[Cell, float], session: str, name: str, decoders: list[str], seconds: str
) -> float:
    """Mean over the seeds that all decoders have here; one without a cell for 0 s is left out."""
    seeds = {cell.seed for cell in cells if cell.session == session}
    others = [
        one for one in decoders if any(Cell(session, s, one, seconds) in cells for s in seeds)
    ]
    known = [s for s in seeds if all(Cell(session, s, one, seconds) in cells for one in others)]
    if name not in others or not known:
        return float("nan")
    return float(np.mean([cells[Cell(session, s, name, seconds)] for s in known]))


def tables(
    cells: dict[Cell, float],
    rows: list[tuple[str, str, list[float]]],
    decoders: list[str],
    columns: list[str],
) -> str:
    """All rows, and in how many sessions each decoder is ahead of the last one."""
    had = defaultdict(set)
    for cell in cells:
        had[cell.session, cell.decoder].add(cell.seed)
    sessions = sorted({cell.session for cell in cells})
    seeds = {one: set.intersection(*(had[one, name] for name in decoders)) for one in sessions}
    body = [
        [one if one == MEAN else f"{one} ({len(seeds[one])})", name,
         *("–" if np.isnan(x) else f"{x:.3f}" for x in r2)]
        for one, name, r2 in rows
    ]  # fmt: skip
    by = {(one, name): np.array(r2) for one, name, r2 in rows}
    wins = []
    for name in decoders[:-1]:
        ahead = [by[one, name] - by[one, decoders[-1]] for one in seeds]
        counts = [
            "–" if np.isnan(x).all() else f"{np.sum(x > 0)} of {np.sum(~np.isnan(x))}"
            for x in np.transpose(ahead)
        ]
        wins.append([name, *counts])
    return (
        f"Causal R² by labelled seconds; behind a session, the seeds that all decoders have\n\n"
        f"{markdown(['session', 'decoder', *columns], body)}\n\n"
        f"Sessions in which it is ahead of {decoders[-1]}\n\n"
        f"{markdown(['decoder', *columns], wins)}"
    )


if __name__ == "__main__":
    run(main)
