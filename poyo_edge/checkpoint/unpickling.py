"""Runs beside the program, in a process of its own: turns a torch file's pickle into plain values.

A torch file holds a pickle, and a pickle can call any function. Here only torch's weights-only
unpickler reads it. Beyond tensors and plain values it may build ``numpy.str_`` scalars, which
torch_brain 0.1 uses as vocabulary words, and inert stand-ins for the classes that older layouts
pickled beside the weights (modules, OmegaConf): they hold what was stored and have no behaviour.

The process serves one program. For each file it forks a child that may neither open files or
connections nor use more memory or time than its limits; the child's answer is JSON and
safetensors, so that no pickle is read in the program itself.

Requests (stdin): length (8 bytes), the file's bytes. Answers (stdout): length of JSON, length of
safetensors (8 bytes each), JSON, safetensors.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import pickle
import pickletools
import re
import resource
import signal
import struct
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch

TIME_LIMIT_S = 120
MEMORY_LIMIT = 1 << 30
"""Bytes beyond four times the size of the file."""
MOST_VALUES = 1_000_000
_DEEPEST = 100
_INERT = re.compile(
    r"(kirby|poyo|torch_brain|omegaconf|hydra|lightning|pytorch_lightning|lightning_utilities"
    r"|torchtyping|temporaldata|brainsets|einops|typing|torch\.nn|torch\._C\._nn)\."
    r"|builtins\.(dict|list|tuple|set|int|float|str|bool|object)$"
    r"|collections\.defaultdict$"
)
_NEEDED = ("state_dict", "model_state_dict")
_CONFIG = ("hyper_parameters", "cfg", "pytorch-lightning_version")


class Inert:
    """Stands for an object of a class that is not loaded; ``name`` says which."""

    name = ""

    def __new__(cls, *_: object, **__: object) -> Inert:
        made = super().__new__(cls)
        made.values = {}
        return made

    values: object

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.values = state


def main() -> None:
    """Serve the program that started this process."""
    torch.set_num_threads(1)
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    # Whatever is imported late has to be there: children cannot open it any more.
    _reply(_smallest_file())
    for late in ("cp437", "ascii", "latin-1"):  # names in archives
        codecs.lookup(late)
    while header := requests.read(8):
        (length,) = struct.unpack("<Q", header)
        data = requests.read(length)
        with tempfile.TemporaryFile() as answer:
            child = os.fork()
            if child == 0:
                _answer(data, answer)
            _, status = os.waitpid(child, 0)
            answer.seek(0)
            reply = answer.read() if status == 0 else _packed({"error": "limits"}, b"")
        answers.write(reply)
        answers.flush()


def unpickle(data: bytes) -> tuple[object, dict[str, torch.Tensor]]:
    """The contents of a torch file as JSON values, and its tensors by the names used there.

    Raises:
        pickle.UnpicklingError: the pickle asks for something that is not allowed.
        Exception: nearly any other, for a damaged file.
    """
    names, _ = scan(pickle_bytes(data))
    stubs = [(type(n, (Inert,), {"name": n}), n) for n in set(names) if _INERT.match(n)]
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        *_numpy_str_globals(),
        *stubs,
    ]
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
        warnings.simplefilter("ignore")
        content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    plain = _Plain()
    return plain.value(_needed(content)), plain.tensors


def scan(pickled: bytes) -> tuple[list[str], list[str]]:
    """Globals that a pickle names and texts that it holds, read without executing it."""
    names: list[str] = []
    texts: list[str] = []
    # The scan goes as far as the pickle is well formed; what it found until then is enough.
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL":
                names.append(_name_today(str(argument)))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except (ValueError, OverflowError):
        pass
    return names, texts


def _name_today(argument: str) -> str:
    """Full name of a global; pickles of protocol 2 call builtins as Python 2 did."""
    name = argument.replace(" ", ".")
    name = (
        "builtins." + name.removeprefix("__builtin__.") if name.startswith("__builtin__.") else name
    )
    return "builtins.int" if name == "builtins.long" else name


def pickle_bytes(data: bytes) -> bytes:
    """The pickle in a torch file: of a legacy file the whole, of which the front is one."""
    if not data.startswith(b"PK"):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    except zipfile.BadZipFile:
        return _unchecked_member(data)


def _unchecked_member(data: bytes) -> bytes:
    """``data.pkl`` of an archive that was written without checksums."""
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith("data.pkl"))
        start = info.header_offset
        name, extra = struct.unpack("<HH", data[start + 26 : start + 30])
        start += 30 + name + extra
        return data[start : start + info.file_size]
    return b""


def _numpy_str_globals() -> list[tuple[Callable[..., Any], str]]:
    scalar: Any = np.str_("").__reduce__()[0]
    return [
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),  # as numpy 1 named it
        (np.dtype, "numpy.dtype"),
        (type(np.dtype("U1")), "numpy.dtypes.StrDType"),
    ]


def _needed(content: object) -> object:
    """A container with the names alone of what only goes on training: optimisers, loops."""
    if not isinstance(content, Mapping) or not any(key in content for key in _NEEDED):
        return content
    needed = (*_NEEDED, *_CONFIG)
    plain = (bool, int, float, str)
    return {k: v if k in needed or isinstance(v, plain) else None for k, v in content.items()}


class _Plain:
    """Turns objects into JSON values: ``{"d": pairs}`` a mapping, ``{"l": ...}`` a sequence,
    ``{"t": name}`` a tensor, ``{"o": class, "v": values}`` anything else."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._count = 0
        self._open: set[int] = set()

    def value(self, item: Any) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise MemoryError("more values than a checkpoint has")
        if isinstance(item, str):
            return str(item)
        if item is None or isinstance(item, (bool, int, float)):
            return item
        if isinstance(item, torch.Tensor):
            return self._tensor(item)
        if id(item) in self._open or len(self._open) > _DEEPEST:
            return {"o": "a reference to itself"}
        self._open.add(id(item))
        try:
            return self._compound(item)
        finally:
            self._open.discard(id(item))

    def _compound(self, item: Any) -> Any:
        if isinstance(item, Mapping):
            return {"d": [[self.value(k), self.value(v)] for k, v in item.items()]}
        if isinstance(item, (list, tuple, set)):
            return {"l": [self.value(part) for part in item]}
        if isinstance(item, Inert):
            return self._inert(item)
        return {"o": f"{type(item).__module__}.{type(item).__qualname__}"}

    def _inert(self, item: Inert) -> Any:
        state = item.values if isinstance(item.values, Mapping) else {}
        if item.name.startswith("omegaconf."):
            for name in ("_content", "_val"):
                if name in state:
                    return self.value(state[name])
        scalars = {k: v for k, v in state.items() if isinstance(v, (bool, int, float, str))}
        return {"o": item.name, "v": self.value(scalars)}

    def _tensor(self, tensor: torch.Tensor) -> Any:
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            return {"o": f"a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}"}
        name = str(len(self.tensors))
        # A copy of its own: what shares memory, or repeats it by strides, would lie on disk twice.
        self.tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        return {"t": name}


def _answer(data: bytes, out: IO[bytes]) -> None:
    """In the child: read the file within the limits, and end."""
    try:
        _confine(len(data))
        out.write(_reply(data))
        out.flush()
        os._exit(0)
    finally:
        os._exit(1)


def _reply(data: bytes) -> bytes:
    try:
        content, tensors = unpickle(data)
        return _packed({"content": content}, safetensors.torch.save(tensors))
    except pickle.UnpicklingError as error:
        return _packed({"error": "pickle", "reason": str(error)[:2000]}, b"")
    except MemoryError:
        return _packed({"error": "limits"}, b"")
    # torch raises nearly every builtin error for a damaged file (KeyError, AssertionError, ...).
    except Exception as error:
        kind = "limits" if "alloc" in str(error) or "memory" in str(error) else "damaged"
        return _packed({"error": kind, "reason": f"{type(error).__name__}: {error}"[:2000]}, b"")


def _packed(values: object, tensors: bytes) -> bytes:
    text = json.dumps(values).encode()
    return struct.pack("<QQ", len(text), len(tensors)) + text + tensors


def _confine(n_bytes: int) -> None:
    """Give up the right to open anything, and to use much memory or time."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 4 * n_bytes + MEMORY_LIMIT
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT_S, TIME_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # No descriptor beyond those open already: no file, no connection.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    signal.alarm(2 * TIME_LIMIT_S)


def _smallest_file() -> bytes:
    file = io.BytesIO()
    torch.save({np.str_("a"): torch.zeros(1)}, file)
    return file.getvalue()
