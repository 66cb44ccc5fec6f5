"""What a checkpoint says about the behaviour of each of its sessions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from poyo_edge.checkpoint.config import readout_scale
from poyo_edge.checkpoint.file import read_checkpoint_file
from poyo_edge.errors import UsageError
from poyo_edge.spec import OutputScale


def readouts_of(path: str | Path) -> dict[str, tuple[OutputScale, str]]:
    """Session → its output scale and behaviour (GROUP.KEY, or empty), where the file says them.

    Raises:
        CheckpointError: the file cannot be read.
    """
    content = read_checkpoint_file(Path(path))[0]
    hyper = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    datasets = hyper.get("dataset") if isinstance(hyper, Mapping) else None
    found: dict[str, tuple[OutputScale, str]] = {}
    for dataset in datasets if isinstance(datasets, list) else ():
        try:
            readout = dataset["config"]["readout"]
            if readout.get("normalize_std") is None and readout.get("normalize_mean") is None:
                continue
            scale = readout_scale(readout)
            names = [name for part in dataset["selection"] for name in part["sessions"]]
        except (KeyError, TypeError, AttributeError, UsageError):
            continue
        found |= {name: (scale, str(readout.get("value_key", ""))) for name in names}
    return found
