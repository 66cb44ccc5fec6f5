"""From the bytes of a checkpoint to plain content, without running anything that is in it.

The pickle in a torch file is read by a process of its own, within limits: see ``unpickling``.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import safetensors.torch

from poyo_edge.checkpoint.confined import UnreadableError, read_confined
from poyo_edge.checkpoint.unpickling import pickle_bytes, scan
from poyo_edge.errors import CheckpointError

logger = logging.getLogger(__name__)

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK"
_PICKLE_MAGIC = b"\x80"
_CHUNK_BYTES = 1 << 20


class CheckpointFile(NamedTuple):
    """What a torch or safetensors file holds."""

    content: object
    """Plain values, tensors on the CPU, and ``Foreign`` for all else."""
    sha256: str
    """Of its bytes, hexadecimal."""
    safetensors: bool
    """Whether it is a safetensors file, which holds tensors alone."""


def read_checkpoint_file(path: Path) -> CheckpointFile:
    """Read a torch or safetensors file.

    Raises:
        CheckpointError: the file is absent, damaged, of another format, or its pickle asks for
            anything but tensors and plain values. Nothing that it asks for is ever called.
    """
    data = _read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    if _is_safetensors(data):
        return CheckpointFile(_load_safetensors(path, data), digest, True)
    _require_torch_format(path, data)
    return CheckpointFile(_unpickle(path, data), digest, False)


def _is_safetensors(data: bytes) -> bool:
    return data[8:10] == b'{"' and int.from_bytes(data[:8], "little") < len(data)


def _load_safetensors(path: Path, data: bytes) -> object:
    try:
        return safetensors.torch.load(data)
    except Exception as error:
        logger.debug("reading %s failed", path, exc_info=error)
        raise _damaged(path) from None


def _read_bytes(path: Path) -> bytes:
    if (path / "manifest.json").is_file():
        raise _not_torch(path, "an artifact, which is exported already", "see poyo-edge inspect")
    if path.is_dir():
        raise _not_torch(path, "a folder", "pass the checkpoint file inside it")
    if path.exists() and not path.is_file():
        raise _not_torch(path, "something that is no file", "check the path")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _not_torch(path, "no such file", "check the path") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _not_torch(path, f"a file that cannot be read ({reason})", "check it") from None


def _require_torch_format(path: Path, data: bytes) -> None:
    save_again = "save it with torch.save(model.state_dict(), PATH)"
    if not data:
        raise _not_torch(path, "an empty file", "copy or download it again")
    if data.startswith(_HDF5_MAGIC):
        raise _not_torch(path, "an HDF5 file", "pass the checkpoint, not a recording")
    if data.startswith(_ZIP_MAGIC):
        _require_pickle_in_zip(path, data)
    elif not data.startswith(_PICKLE_MAGIC):
        raise _not_torch(path, "a file of another format", save_again)


def _require_pickle_in_zip(path: Path, data: bytes) -> None:
    # zipfile raises many kinds of errors for damaged archives; all mean the same here.
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
            if unpacked <= len(data):  # torch never compresses; more is a bomb
                _require_checksums(archive)
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except Exception as error:
        logger.debug("reading the archive %s failed", path, exc_info=error)
        raise _damaged(path) from None
    if unpacked > len(data):
        got = f"an archive of {len(data)} bytes that unpacks to {unpacked}"
        raise _not_torch(path, got, "save it again with torch.save")
    if "constants.pkl" in names:
        raise _not_torch(path, "a TorchScript archive", "pass the training checkpoint instead")
    if "data.pkl" not in names:
        raise _not_torch(path, "a zip archive without tensors", "pass the training checkpoint")


def _require_checksums(archive: zipfile.ZipFile) -> None:
    # torch.load ignores the checksums, so a flipped bit would become a wrong weight unnoticed.
    for info in archive.infolist():
        if info.CRC == 0:  # empty, or written without checksums (torch's set_crc32_options)
            continue
        with archive.open(info) as member:
            while member.read(_CHUNK_BYTES):
                pass


def _unpickle(path: Path, data: bytes) -> object:
    try:
        return read_confined(data)
    except UnreadableError as error:
        logger.debug("reading %s failed: %s", path, error)
        if error.kind == "pickle":
            raise _refused(path, data, error.reason) from None
        if error.kind == "limits":
            raise _too_much(path) from None
        raise _damaged(path) from None


def _refused(path: Path, data: bytes, reason: str) -> CheckpointError:
    globals_, _ = scan(pickle_bytes(data))
    found = re.search(r"GLOBAL ([\w.<>]+)|got <class '([\w.]+)'>", reason)
    unknown = [g for g in globals_ if not g.startswith(("torch.", "collections.", "numpy."))]
    if found is None and not unknown:
        return _damaged(path)
    name = (found[1] or found[2]) if found else unknown[0]
    return CheckpointError(
        path,
        "pickle",
        expected="only tensors and plain values",
        got=f"the global {name!r}",
        do="it was refused and did not run; where the file was made, save the weights alone with "
        "torch.save(model.state_dict(), PATH)",
    )


def _too_much(path: Path) -> CheckpointError:
    return CheckpointError(
        path,
        "file",
        expected="a checkpoint that can be read within its limits of memory and time",
        got="one that needs more than four times its size and 1 GiB, or more than two minutes",
        do="where the file was made, save the weights alone with "
        "torch.save(model.state_dict(), PATH)",
    )


def _not_torch(path: Path, got: str, do: str) -> CheckpointError:
    return CheckpointError(path, "file", expected="a torch checkpoint", got=got, do=do)


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        path,
        "file",
        expected="a complete torch checkpoint",
        got="a truncated or damaged file, or a pickle that torch did not write",
        do="copy or download it again",
    )
