"""Converts a file that nobody vouches for in a process of its own, within limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poyo_edge.converting.to_recording import ConvertOptions, convert, describe
from poyo_edge.files.confined import BeyondLimitsError, call_confined
from poyo_edge.recording.confined import beyond_limits

TIME_LIMIT_S = 300
"""Of a processor, and as much again for each gigabyte."""
MEMORY_LIMIT = 2 << 30
"""Bytes beyond eight times the size of the file."""


def describe_confined(
    path: Path, behavior_file: Path | None, time_column: str = ""
) -> dict[str, Any]:
    """See ``describe``.

    Raises:
        RecordingError: also when the file cannot be read within the limits.
    """
    return _confined("describe_words", path, behavior_file, time_column=time_column)


def convert_confined(
    path: Path, out: Path | None, options: ConvertOptions, behavior_file: Path | None
) -> dict[str, Any]:
    """See ``convert``.

    Raises:
        RecordingError: also when the file cannot be read within the limits.
    """
    words = {"out": None if out is None else str(out), "options": dataclasses.asdict(options)}
    return _confined("convert_words", path, behavior_file, **words)


def describe_words(path: str, behavior_file: str | None, time_column: str) -> dict[str, Any]:
    """``describe`` of JSON values."""
    return describe(path, behavior_file, time_column)


def convert_words(
    path: str, behavior_file: str | None, out: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """``convert`` of JSON values."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    return convert(path, out, ConvertOptions(**fields), behavior_file=behavior_file)


def _confined(name: str, path: Path, behavior_file: Path | None, **words: Any) -> dict[str, Any]:
    size = sum(_size(one) for one in (path, behavior_file) if one is not None)
    arguments = {
        "path": str(path),
        "behavior_file": None if behavior_file is None else str(behavior_file),
        **words,
    }
    try:
        made: dict[str, Any] = call_confined(
            f"{__name__}:{name}",
            arguments,
            seconds=TIME_LIMIT_S * (1 + (size >> 30)),
            memory=MEMORY_LIMIT + 8 * size,
        )
    except BeyondLimitsError as end:
        raise beyond_limits(path, "a file with spikes", end.how) from None
    return made


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.stat().st_size for one in files if one.is_file())
