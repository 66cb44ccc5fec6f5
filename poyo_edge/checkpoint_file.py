"""Opens a research checkpoint without running anything that is in it.

A torch file holds a pickle, and a pickle can call any function. Only torch's weights-only
unpickler reads it here; beyond tensors and plain values it may build ``numpy.str_`` scalars,
which torch_brain 0.1 uses as vocabulary words.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poyo_edge.checkpoint_layout import foreign_layout
from poyo_edge.errors import CheckpointError

logger = logging.getLogger(__name__)

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK"
_PICKLE_MAGIC = b"\x80"
_CHUNK_BYTES = 1 << 20


def read_torch_file(path: Path) -> tuple[object, str]:
    """What a torch file holds, tensors on the CPU, and the SHA-256 of its bytes.

    Raises:
        CheckpointError: the file is absent, damaged, of another format, or its pickle asks for
            anything but tensors and plain values. Nothing that it asks for is ever called.
    """
    data = _read_bytes(path)
    _require_torch_format(path, data)
    return _unpickle(path, data), hashlib.sha256(data).hexdigest()


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise _not_torch(path, "a folder", "pass the checkpoint file inside it")
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
    if data[8:10] == b'{"' and int.from_bytes(data[:8], "little") < len(data):
        raise _not_torch(path, "a safetensors file, which holds no vocabulary", save_again)
    if data.startswith(_ZIP_MAGIC):
        _require_pickle_in_zip(path, data)
    elif not data.startswith(_PICKLE_MAGIC):
        raise _not_torch(path, "a file of another format", save_again)


def _require_pickle_in_zip(path: Path, data: bytes) -> None:
    # zipfile raises many kinds of errors for damaged archives; all mean the same here.
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _require_checksums(archive)
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except Exception as error:
        logger.debug("reading the archive %s failed", path, exc_info=error)
        raise _damaged(path) from None
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
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_str_globals()):
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise _refused(path, data, str(error)) from None
    # torch raises nearly every builtin error for a damaged file (KeyError, AssertionError, ...).
    except Exception as error:
        logger.debug("torch.load of %s failed", path, exc_info=error)
        raise _damaged(path) from None


def _numpy_str_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    scalar: Any = np.str_("").__reduce__()[0]
    return [
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),  # as numpy 1 named it
        np.dtype,
        type(np.dtype("U1")),  # numpy.dtypes.StrDType
    ]


def _refused(path: Path, data: bytes, reason: str) -> CheckpointError:
    globals_, strings = _scan(_pickle_bytes(data))
    found = re.search(r"GLOBAL ([\w.<>]+)|got <class '([\w.]+)'>", reason)
    unknown = [g for g in globals_ if not g.startswith(("torch.", "collections.", "numpy."))]
    if found is None and not unknown:
        return _damaged(path)
    name = (found[1] or found[2]) if found else unknown[0]
    layout = foreign_layout(strings)
    if layout is None and name.startswith("omegaconf."):
        layout = "layout F (ibl-bwb trainers, configuration pickled with OmegaConf)"
    return CheckpointError(
        path,
        "pickle",
        expected="only tensors and plain values",
        got=f"the global {name!r}" + (f" in {layout}" if layout else ""),
        do="it was refused and did not run; where the file was made, save the weights alone with "
        "torch.save(model.state_dict(), PATH)",
    )


def _pickle_bytes(data: bytes) -> bytes:
    if not data.startswith(_ZIP_MAGIC):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    except zipfile.BadZipFile:  # written without checksums
        return b""


def _scan(pickled: bytes) -> tuple[list[str], list[str]]:
    """Globals that a pickle names and texts that it holds, read without executing it."""
    names: list[str] = []
    texts: list[str] = []
    # The scan goes as far as the pickle is well formed; what it found until then is enough.
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except ValueError:
        pass
    return names, texts


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
