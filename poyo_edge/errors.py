"""Every error that poyo-edge raises on purpose, with the exit code that the command line gives it.

Each one also inherits the builtin it refines, so that callers who never heard of poyo-edge can
still catch ``ValueError``, ``ImportError`` or ``FileNotFoundError``.

Exit codes: 0 done, 1 bug, 2 usage, 3 a check failed, 4 environment, 5 file, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_EXPORT = ("torch", "onnx", "onnx-ir", "onnxruntime", "matplotlib")
_TRAIN = ("torch", "lightning", "torch_brain", *(("tomli",) if sys.version_info < (3, 11) else ()))
EXTRAS = {
    "ort": ("onnxruntime",),
    "gpu": ("onnxruntime-gpu",),
    "tensorrt": (),
    "rtx": (
        "tensorrt_rtx_cu13_libs==1.7.1.116",
        "tensorrt_rtx_cu13_bindings==1.7.1.116",
    ),
    "openvino": ("openvino",),
    "plot": ("matplotlib",),
    "page": ("bokeh>=3.4,<4",),
    "sign": ("cryptography",),
    "nwb": ("pynwb",),
    "neo": ("neo",),
    "lsl": ("pylsl",),
    "redis": ("redis",),
    "zmq": ("pyzmq",),
    "blackrock": ("pycbsdk",),
    "falcon": ("falcon-challenge",),
    "export": _EXPORT,
    "train": _TRAIN,
    "all": tuple(dict.fromkeys((*_EXPORT, *_TRAIN, "bokeh>=3.4,<4"))),
}
"""Extra → the packages that it brings, by the names that pip knows. Messages name these: nobody
owns "poyo-edge" at the package index, and what somebody puts there would be installed."""


def pip_install(extra: str, package: str = "") -> str:
    """The command that installs what an extra brings.

    Args:
        extra: of ``EXTRAS``.
        package: what to install where the extra is none of ours.
    """
    names = EXTRAS.get(extra, (package,))
    words = [f'"{name}"' if set("<>=") & {*name} else name for name in names]
    return f"pip install {' '.join(words)}"


class PoyoEdgeError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class UsageError(PoyoEdgeError, ValueError):
    """An argument makes no sense: wrong name, shape, dtype, unit or combination."""

    exit_code = 2


class CheckFailedError(PoyoEdgeError, ArithmeticError):
    """A numerical check (parity, golden windows, accuracy) did not hold."""

    exit_code = 3


class MissingExtraError(PoyoEdgeError, ImportError):
    """An optional dependency is not installed. The message is the pip command to type."""

    exit_code = 4

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"run: {pip_install(extra, package)}"
        )


def imported(module: str, extra: str, purpose: str) -> Any:
    """A module that imports what an extra brings.

    Raises:
        MissingExtraError: the extra is not installed; with the pip command that does it.
    """
    try:
        return importlib.import_module(module)
    except MissingExtraError:
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "poyo_edge":
            raise
        raise MissingExtraError(package, extra, purpose) from error


class BackendError(PoyoEdgeError, RuntimeError):
    """An inference backend is absent, cannot open the core, or failed while running it."""

    exit_code = 4


class FileProblemError(PoyoEdgeError, ValueError):
    """A file is not what it should be. One sentence: file, field, expected, got, what to do."""

    exit_code = 5

    def __init__(
        self, path: str | Path, field: str, *, expected: object, got: object, do: str
    ) -> None:
        self.path = str(path)
        self.field = field
        self.expected = expected
        self.got = got
        self.do = do
        super().__init__(f"{self.path}: {field}: expected {expected}, got {got}; {do}")


class CheckpointError(FileProblemError):
    """A research checkpoint that cannot be used."""


class RecordingError(FileProblemError):
    """A recording (HDF5) that cannot be used."""


class ArtifactError(FileProblemError):
    """An artifact (``NAME.poyo/``) that cannot be used."""


class SessionError(FileProblemError):
    """A session file (``ID.session``) that cannot be used."""


class SignatureError(FileProblemError):
    """A key, or a signature of an artifact, that cannot be used or does not hold."""
