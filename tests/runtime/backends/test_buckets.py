"""Token buckets: with the boundary token powers of two; the smallest that fits is taken."""

from __future__ import annotations

import pytest

from poyo_edge.errors import UsageError
from poyo_edge.runtime.backends.buckets import fitting_bucket, token_buckets, unit_capacity


@pytest.mark.parametrize(
    ("most", "buckets"),
    [
        (1, (511,)),
        (511, (511,)),
        (512, (511, 1023)),
        (8191, (511, 1023, 2047, 4095, 8191)),
        (8192, (511, 1023, 2047, 4095, 8191, 16383)),
    ],
)
def test_with_the_boundary_token_buckets_are_powers_of_two_up_to_the_first_that_holds_all(
    most: int, buckets: tuple[int, ...]
) -> None:
    assert token_buckets(most) == buckets


@pytest.mark.parametrize("most", [0, -1, (1 << 20) + 1])
def test_numbers_out_of_range_are_refused(most: int) -> None:
    with pytest.raises(UsageError, match=rf"^max_spikes: expected 1 to 1048576, got {most}$"):
        token_buckets(most)


def test_the_smallest_bucket_that_holds_a_window_is_taken() -> None:
    buckets = token_buckets(2048)
    found = [fitting_bucket(buckets, n) for n in (0, 511, 512, 2047, 2048, 4096)]
    assert found == [511, 511, 1023, 2047, 4095, None]


def test_there_is_room_for_more_units_than_a_session_has() -> None:
    assert [unit_capacity(n) for n in (1, 64, 65, 100, 129)] == [64, 64, 128, 128, 256]
    with pytest.raises(UsageError, match=r"^n_units: expected an integer >= 1, got 0$"):
        unit_capacity(0)
