"""Token buckets: the numbers of spikes that engines of fixed shape are built for."""

from __future__ import annotations

from collections.abc import Sequence

from poyo_edge.errors import BackendError, UsageError

SMALLEST = 511
LARGEST = 1 << 20
_FEWEST_UNITS = 64


class WindowTooLargeError(BackendError):
    """A window with more spikes, or a session with more units, than a backend was built for."""


def token_buckets(max_spikes: int, smallest: int = SMALLEST) -> tuple[int, ...]:
    """2ᵏ - 1 spikes each, from ``smallest`` to the first that holds ``max_spikes``.

    With the boundary token behind the spikes that is an aligned 2ᵏ tokens, which GPU kernels take
    as they are: with 2ᵏ spikes TensorRT pads keys, scores and values in kernels of their own.

    Raises:
        UsageError: ``max_spikes`` is out of range.
    """
    if not 1 <= max_spikes <= LARGEST:
        raise UsageError(f"max_spikes: expected 1 to {LARGEST}, got {max_spikes}")
    buckets = [smallest]
    while buckets[-1] < max_spikes:
        buckets.append(2 * buckets[-1] + 1)
    return tuple(buckets)


def fitting_bucket(buckets: Sequence[int], n_spikes: int) -> int | None:
    """The smallest bucket that holds ``n_spikes``, or None when there is none."""
    return min((bucket for bucket in buckets if bucket >= n_spikes), default=None)


def unit_capacity(n_units: int) -> int:
    """How many units engines are built for: the next power of two, so that sessions may grow."""
    if n_units < 1:
        raise UsageError(f"n_units: expected an integer >= 1, got {n_units}")
    return max(_FEWEST_UNITS, 1 << (n_units - 1).bit_length())
