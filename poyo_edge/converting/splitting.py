"""Train, valid and test: consecutive shares of the observed time."""

from __future__ import annotations

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError

SPLITS = ("train", "valid", "test")


def split_shares(text: str) -> tuple[float, float, float]:
    """Three shares from words like "0.7,0.1,0.2".

    Raises:
        UsageError: not three numbers > 0 with a sum of 1 at most.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not all(0 < s < 1 for s in shares) or sum(shares) > 1 + 1e-9:
        raise UsageError(
            f"split: expected shares of train, valid and test with a sum of 1 at most, like "
            f"0.7,0.1,0.2, got {text!r}"
        )
    return shares[0], shares[1], shares[2]


def split_domains(
    observed: Float64, trials: Float64, shares: tuple[float, float, float]
) -> dict[str, Float64]:
    """Split the observed time, so that no trial lies in two splits.

    Args:
        observed: (K, 2) float64 seconds, sorted, apart from each other.
        trials: (J, 2) float64 seconds; a cut inside a trial moves to its nearer end.
        shares: of train, valid and test.

    Returns:
        Split → (k, 2) float64 seconds.

    Raises:
        UsageError: a split would be empty.
    """
    lengths = observed[:, 1] - observed[:, 0]
    ends = np.cumsum(shares) * lengths.sum()
    cuts = [_off_trials(_moment(observed, lengths, end), trials) for end in ends]
    domains = {}
    for name, start, end in zip(SPLITS, [observed[0, 0], *cuts], cuts, strict=False):
        pieces = np.clip(observed, start, end)
        pieces = pieces[pieces[:, 1] > pieces[:, 0]]
        if not len(pieces):
            raise UsageError(
                f"split: expected some time in the {name} split, got none of "
                f"{lengths.sum():.3f} s; give it a larger share"
            )
        domains[name] = pieces
    return domains


def _moment(observed: Float64, lengths: Float64, heard: float) -> float:
    """When so many seconds have been observed."""
    before = np.concatenate([[0.0], np.cumsum(lengths)])
    if heard >= before[-1] - 1e-9:
        return float(observed[-1, 1])
    piece = int(np.searchsorted(before, heard, side="right")) - 1
    return float(observed[piece, 0] + heard - before[piece])


def _off_trials(moment: float, trials: Float64) -> float:
    for start, end in trials:
        if start < moment < end:
            return float(start if moment - start <= end - moment else end)
    return moment
