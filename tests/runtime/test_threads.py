"""Many threads, many spikes: nothing is lost, torn or kept for ever."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from poyo_edge.artifact import Session
from poyo_edge.runtime import DecoderSettings, FailsafeSettings, Result

if TYPE_CHECKING:
    from conftest import Rig

T = 1.0


def relabelled(session: Session, name: str, rows: Sequence[int]) -> Session:
    """The same units in another order, with another session embedding."""
    header = dataclasses.replace(
        session.header,
        session_id=name,
        unit_ids=tuple(session.header.unit_ids[row] for row in rows),
    )
    return Session(
        header=header,
        unit_embedding=session.unit_embedding[list(rows)],
        session_embedding=-session.session_embedding,
    )


class running:
    """Run functions in threads until the block ends; their exceptions are raised then."""

    def __init__(self, *functions: Callable[[], None], stop: threading.Event) -> None:
        self.stop, self.errors = stop, list[BaseException]()
        self.threads = [threading.Thread(target=self._run, args=(f,)) for f in functions]

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def test_a_swap_under_decoding_threads_is_all_or_nothing(rig: Rig) -> None:
    times, rows = rig.stream(200, T)
    other = relabelled(rig.a, "other", [*range(11, -1, -1)])
    decoder = rig.decoder()
    decoder.push(times, rows)
    expected = {
        "tiny_a": rig.batch(times, rows, T),
        "other": rig.batch(times, 11 - rows, T, other),
    }
    assert np.abs(expected["tiny_a"] - expected["other"]).max() > 0.1
    decoded: list[Result] = []
    stop = threading.Event()

    def decode() -> None:
        while not stop.is_set():
            decoded.append(decoder.decode(T))

    with running(decode, stop=stop):
        for i in range(200):
            decoder.swap_session(rig.a if i % 2 else other)
            time.sleep(0.001)
    assert {result.session_id for result in decoded} == set(expected)
    assert all(np.array_equal(result.value, expected[result.session_id]) for result in decoded)


def test_pushing_decoding_and_swapping_threads_lose_no_count(rig: Rig) -> None:
    never_lost = FailsafeSettings(missed_spikes=math.inf)  # other threads may get no turn for long
    decoder = rig.decoder(settings=DecoderSettings(capacity=2000, failsafe=never_lost))
    other = relabelled(rig.a, "other", [*range(11, -1, -1)])
    stop, pushed, decodes = threading.Event(), [0, 0, 0], [0]
    begin = time.perf_counter()

    def now() -> float:
        return 100.0 + time.perf_counter() - begin

    def push(place: int) -> None:
        rng = np.random.default_rng(place)
        while not stop.is_set():
            n = int(rng.integers(0, 40))
            times = now() + rng.choice([0.0, -0.02, -0.5, -3.0, 1e4, np.nan], n)
            times += rng.uniform(0, 0.01, n).round(3)
            decoder.push(times, rng.integers(-1, rig.n_units + 1, n))
            pushed[place] += n
            time.sleep(0.0005)

    def decode() -> None:
        while not stop.is_set():
            result = decoder.decode(now())
            assert np.isfinite(result.value).all()
            json.dumps(decoder.stats())
            decodes[0] += 1

    def swap() -> None:
        for i in itertools.count():
            if stop.is_set():
                return
            decoder.swap_session((rig.a, other, rig.b)[i % 3])
            time.sleep(0.01)

    pushers = [lambda place=place: push(place) for place in range(3)]
    decoder.decode(now())  # Only then can spikes be late or ahead.
    decodes[0] += 1
    with running(*pushers, decode, swap, stop=stop):
        time.sleep(1.5)
    stats = decoder.stats()
    counters = stats["counters"]
    dropped = ("unknown_unit", "late", "future", "duplicate", "not_finite")
    assert counters["received"] == sum(pushed) > 1000
    assert counters["received"] == counters["accepted"] + sum(counters[name] for name in dropped)
    assert all(counters[name] > 0 for name in (*dropped, "delayed", "session_change"))
    assert stats["n_decodes"] == decodes[0] == decoder.latency.counts.sum() > 10
    assert stats["statuses"]["HELD"] == stats["statuses"]["INVALID"] == 0
    assert counters["backend_failures"] == 0


def test_a_million_spikes_take_no_more_memory_than_the_first_thousand(rig: Rig) -> None:
    decoder = rig.decoder(settings=DecoderSettings(capacity=1 << 14))
    rng = np.random.default_rng(0)
    rows = rng.integers(0, rig.n_units, 1000).astype(np.int32)
    offsets = np.sort(rng.uniform(0, 0.2, 1000))

    def hear(first: int, last: int) -> None:
        for chunk in range(first, last):
            start = chunk * 0.2
            decoder.push(start + offsets, rows)
            if chunk % 10 == 9:
                decoder.push(start + offsets[::-1] - 0.1, rows)
                decoder.decode(start + 0.2)

    hear(0, 20)
    tracemalloc.start()
    try:
        hear(20, 30)
        before, _ = tracemalloc.get_traced_memory()
        hear(30, 1000)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    counters = decoder.stats()["counters"]
    assert counters["received"] >= 1_000_000
    assert decoder.stats()["buffered_spikes"] <= 1 << 14
    assert after - before < 20_000
    assert peak - before < 3_000_000
