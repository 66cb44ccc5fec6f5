"""The contract of a backend: what runs the core, and what every caller may ask of it.

A backend holds no stream state: feeds in, predictions out.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import BackendError, UsageError
from poyo_edge.runtime.backends.buckets import SMALLEST
from poyo_edge.runtime.backends.machine import Machine

Feeds = Mapping[str, npt.NDArray[Any]]


class Backend(Protocol):
    """Runs the core on the inputs of its graph. Backends inherit what they have no other for."""

    name: str
    """As the table of backends calls it; with one behind it, of the one that decoded last."""
    precision: str = "fp32"
    """What it computes in, likewise."""
    fallen_back: bool = False
    """Whether the one behind it decoded the last window."""

    late: int = 0
    """Windows that were not back in time."""

    @abc.abstractmethod
    def run(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale.

        Raises:
            BackendError: the run failed.
        """

    def set_period(self, period_s: float) -> None:
        """Say how often a window is decoded, in seconds; nothing to those without a deadline."""
        del period_s

    def offer(self, feeds: Feeds) -> bool:
        """Begin a window without waiting for its end; whether it was begun (see ``idle``).

        Raises:
            BackendError: the run failed.
        """
        del feeds
        return False

    def idle(self) -> bool:
        """Whether nothing that was begun is still running; never waits.

        Raises:
            BackendError: what was begun failed.
        """
        return True

    def keep_warm(self, pause_s: float) -> None:
        """From now on, compute something whenever nothing ran for ``pause_s`` seconds.

        Raises:
            UsageError: there is nothing to keep warm.
        """
        raise UsageError(f"keep_warm_s: expected a TensorRT backend, got {self.name}")


class LateError(BackendError):
    """A window was not back in time; what computes it may come back."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """Whether a backend can be used on this machine, and why or why not."""

    name: str
    present: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What an artifact has for backends beside its core."""

    folder: Path | None = None
    """Of the artifact: engines and approved precisions are in there; None for a core alone."""
    core_sha256: str = ""
    max_spikes: int = SMALLEST
    fused: bytes | None = None
    """The bytes of ``core.ort-cpu.onnx``, already checked."""
    native: bytes | None = None
    """Of ``core.cpu.onnx``, likewise."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoreToOpen:
    """A core about to be opened, and where."""

    core: bytes
    """The bytes of ``core.onnx``, already checked against the manifest."""
    threads: int
    """For one window on the CPU."""
    beside: Beside
    machine: Machine
