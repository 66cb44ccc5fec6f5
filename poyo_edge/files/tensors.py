"""safetensors files read whole, checked, and never trusted before that."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from poyo_edge.errors import FileProblemError

Tensors = dict[str, npt.NDArray[Any]]
MAX_BYTES = 2 << 30
_HEADER_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100 << 20


def to_bytes(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Serialise arrays and a string → string header."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return bytes(safetensors.numpy.save(contiguous, metadata=dict(metadata)))


def from_bytes(
    data: bytes, path: str | Path, error: type[FileProblemError]
) -> tuple[Tensors, dict[str, str]]:
    """``(tensors, metadata)`` of a safetensors file.

    Raises:
        FileProblemError: of the class ``error``; the bytes are no valid safetensors file.
    """
    metadata = _metadata(data, path, error)
    try:
        return dict(safetensors.numpy.load(data)), metadata
    except Exception as problem:
        raise error(
            path,
            "contents",
            expected="a whole safetensors file",
            got=f"{len(data)} bytes that are none ({problem})",
            do="copy or create the file again",
        ) from problem


def read_file(path: str | Path, error: type[FileProblemError], max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of bounded size.

    Raises:
        FileProblemError: of the class ``error``; missing, unreadable, not a file, too large.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            got = "a folder" if path.is_dir() else "something else"
            raise error(path, "file", expected="a file", got=got, do="name the file itself")
        if size > max_bytes:
            raise error(
                path,
                "size",
                expected=f"at most {max_bytes} bytes",
                got=f"{size}",
                do="check that this is the file that you meant",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise error(
            path, "file", expected="an existing file", got="none", do="check the path"
        ) from None
    except OSError as problem:
        raise error(
            path, "file", expected="a readable file", got=problem.strerror, do="check permissions"
        ) from problem


def require_tensor(
    tensors: Tensors,
    name: str,
    shape: tuple[int | None, ...],
    path: str | Path,
    error: type[FileProblemError],
) -> npt.NDArray[np.float32]:
    """A finite float32 tensor of the given shape (None: any length).

    Raises:
        FileProblemError: of the class ``error``; missing, wrong dtype or shape, NaN or Inf.
    """
    do = "create the file again with this version of poyo-edge"
    wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
    if name not in tensors:
        raise error(path, name, expected=f"a float32 tensor {wanted}", got="none", do=do)
    tensor = tensors[name]
    fits = tensor.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != np.float32 or not fits:
        raise error(
            path,
            name,
            expected=f"float32 {wanted}",
            got=f"{tensor.dtype} {tensor.shape}",
            do=do,
        )
    if not np.isfinite(tensor).all():
        count = int((~np.isfinite(tensor)).sum())
        raise error(path, name, expected="finite values", got=f"{count} NaN or Inf", do=do)
    return np.asarray(tensor)


def _metadata(data: bytes, path: str | Path, error: type[FileProblemError]) -> dict[str, str]:
    do = "copy or create the file again"
    if len(data) < _HEADER_LENGTH_BYTES:
        raise error(path, "header", expected="a safetensors file", got=f"{len(data)} bytes", do=do)
    (length,) = struct.unpack("<Q", data[:_HEADER_LENGTH_BYTES])
    if length > min(_MAX_HEADER_BYTES, len(data) - _HEADER_LENGTH_BYTES):
        raise error(
            path,
            "header",
            expected="a safetensors header inside the file",
            got=f"a length of {length} in a file of {len(data)} bytes",
            do=do,
        )
    try:
        header = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
        metadata = header.get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, AttributeError, RecursionError) as problem:
        raise error(path, "header", expected="JSON", got=f"{problem}", do=do) from problem
