"""Train, valid and test: consecutive shares of the observed time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.recording.recording import within
from poyo_edge.recording.rules import refuse

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


def labelled_part(observed: Float64, times: Sequence[Float64]) -> Float64:
    """The observed time (K, 2) from the first to the last moment that all behaviours have.

    Args:
        observed: seconds, sorted, apart from each other.
        times: of each behaviour, (S,) seconds.

    Raises:
        UsageError: there is none.
    """
    start = max((float(one[0]) for one in times if len(one)), default=np.inf)
    end = min((float(one[-1]) for one in times if len(one)), default=-np.inf)
    both = np.clip(observed, start, max(start, end))
    both = both[both[:, 1] > both[:, 0]]
    if not len(both):
        raise UsageError(
            "split-labelled: expected a time that all behaviours have beside spikes, got none; "
            "take fewer with --behavior"
        )
    return both


def require_labelled(
    path: Path,
    domains: Mapping[str, Float64],
    times: Mapping[str, Float64],
    *,
    asked: bool,
    accepted: bool,
) -> list[str]:
    """Refuse a train or test split without labels; notes on behaviours that have none in one.

    Args:
        path: for the message.
        domains: split → (K, 2) seconds.
        times: behaviour → (S,) seconds of its samples that are no NaN.
        asked: whether each of them was asked for; else one that has labels is enough.
        accepted: whether somebody has looked into it: then nothing is refused.

    Raises:
        RecordingError: nothing could be learned, or judged.
    """
    empty = {
        key: [
            name for name in ("train", "test")
            if name in domains and not within(own, domains[name]).any()
        ]
        for key, own in times.items()
    }  # fmt: skip
    lacking = {key: names for key, names in empty.items() if names}
    if lacking and not accepted and (asked or len(lacking) == len(times)):
        key, names = next(iter(lacking.items()))
        first = f"{times[key][0]:.3f} to {times[key][-1]:.3f} s" if len(times[key]) else "none"
        split = domains[names[0]]
        refuse(
            path,
            key,
            f"labels in the {names[0]} split, {split[0, 0]:.3f} to {split[-1, 1]:.3f} s",
            f"labels from {first}" if len(times[key]) else "none that is no NaN",
            "take shares of the time that has labels with --split-labelled, or check that spikes "
            "and behaviour are on one clock, or take it as it is with --accept overlap",
        )
    return [f"{key} has no labels in {' and '.join(names)}" for key, names in lacking.items()]


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
