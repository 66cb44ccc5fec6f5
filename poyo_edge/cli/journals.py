"""The journal of a run: a name that is free, and its recording in the end."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

from poyo_edge.cli.console import Console
from poyo_edge.errors import PoyoEdgeError


def as_recording(journal: Path) -> dict[str, Any]:
    """The journal's recording beside it; a reason when there can be none, as on a full disk."""
    from poyo_edge.converting import convert

    try:
        made = convert(journal, _free_name(journal.with_suffix(".h5")))
    except (PoyoEdgeError, OSError) as error:
        return {"recording": None, "recording_problem": str(error)}
    return {"recording": made["recording"]}


def journal_name(path: Path, console: Console) -> Path:
    """A name that is free: a run that is started again goes on in the next number."""
    free = path if path.is_dir() else _free_name(path)
    if free != path:
        console.step(f"{path} is there already and stays as it is: recording to {free}")
    return free


def _free_name(path: Path) -> Path:
    """The name itself, or with a number that makes it new."""
    numbered = (path.with_stem(f"{path.stem}_{i}") for i in itertools.count(2))
    names = itertools.chain([path], numbered)
    return next(name for name in names if not os.path.lexists(name))
