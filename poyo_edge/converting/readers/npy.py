"""Arrays of numpy's own format, as folders of sorters and of Open Ephys hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.recording.rules import refuse


def read_npy(path: Path, do: str, *, expected: str = "an array") -> npt.NDArray[Any]:
    """An array of a file, flat (N,); nothing in it is executed.

    Args:
        path: the file.
        do: what to do where it cannot be read, for the message.
        expected: what it should hold, for the message.

    Raises:
        RecordingError: numpy cannot read it.
    """
    try:
        found: npt.NDArray[Any] = np.load(path, allow_pickle=False).ravel()
    except (OSError, ValueError, EOFError) as error:
        refuse(path, "file", expected, f"one that numpy cannot read ({error})", do)
    return found
