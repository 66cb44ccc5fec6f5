"""``golden.safetensors``: windows and gradients as the checkpoint's own model computes them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.files import tensors

_FEED, _EXPECTED = "adapt.feed.", "adapt.expected."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoldenGradients:
    """A batch of labelled windows with the gradients of the checkpoint's own model."""

    feeds: dict[str, npt.NDArray[Any]]
    """The inputs of ``adapt.onnx``."""
    expected: dict[str, npt.NDArray[np.float32]]
    """Its outputs."""
    tolerance: float
    """Largest allowed error of an output, relative to its largest entry."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Golden:
    """Windows with the outputs of the checkpoint's own model, for ``verify``."""

    unit_embedding: npt.NDArray[np.float32]
    session_embedding: npt.NDArray[np.float32]
    windows: tuple[dict[str, npt.NDArray[Any]], ...]
    """Each with spike_time (N,) float32, spike_unit (N,) int32, query_time (Q,) float32 and
    prediction (Q, O) float32 in the model's scale."""
    tolerance: float
    """Largest allowed absolute error of a prediction."""
    gradients: GoldenGradients

    def to_bytes(self) -> bytes:
        """The contents of ``golden.safetensors``."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "unit_embedding": self.unit_embedding,
            "session_embedding": self.session_embedding,
        }
        for i, window in enumerate(self.windows):
            arrays |= {f"{i}.{name}": array for name, array in window.items()}
        gradients = self.gradients
        arrays |= {f"{_FEED}{name}": array for name, array in gradients.feeds.items()}
        arrays |= {f"{_EXPECTED}{name}": array for name, array in gradients.expected.items()}
        tolerances = {
            "tolerance": repr(self.tolerance),
            "gradient_tolerance": repr(gradients.tolerance),
        }
        return tensors.to_bytes(arrays, tolerances)


def golden_of(arrays: tensors.Tensors, metadata: dict[str, str]) -> Golden:
    """What ``golden.safetensors`` holds.

    Raises:
        KeyError, ValueError: something is missing, or a tolerance is no number.
    """
    names = ("spike_time", "spike_unit", "query_time", "prediction")
    # At least one: the look-up below names what is missing.
    count = max(1, sum(name.endswith(".prediction") for name in arrays))
    return Golden(
        unit_embedding=arrays["unit_embedding"],
        session_embedding=arrays["session_embedding"],
        windows=tuple({name: arrays[f"{i}.{name}"] for name in names} for i in range(count)),
        tolerance=float(metadata["tolerance"]),
        gradients=GoldenGradients(
            feeds=_behind(arrays, _FEED),
            expected=_behind(arrays, _EXPECTED),
            tolerance=float(metadata["gradient_tolerance"]),
        ),
    )


def _behind(arrays: tensors.Tensors, prefix: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays whose names begin with a prefix, without it; at least one."""
    found = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    if not found:
        raise KeyError(f"{prefix}*")
    return found
