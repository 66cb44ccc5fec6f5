"""The same random stream through Python's decoder and the C library's, compared at each window."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from helpers.native.calling import NativeDecoder, NativeResult
from poyo_edge.arrays import Float32
from poyo_edge.artifact import Session
from poyo_edge.runtime import Decoder, DecoderSettings, FailsafeSettings
from poyo_edge.runtime.backends.ort_cpu import open_ort_cpu
from poyo_edge.runtime.constants import SessionConstants
from poyo_edge.runtime.core import Core
from poyo_edge.runtime.health import HealthSettings

NO_HEALTH = HealthSettings(verify_s=None, horizon_s=1e9)
"""What is about health and the check of the session is Python's alone."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrozenCore(Core):
    """A core that decodes with frozen files, or as the stand-in for ONNX Runtime does."""

    models: Mapping[bytes, Any]
    """Bytes of a session's embedding → its frozen file, opened; None is the stand-in."""

    @classmethod
    def of(cls, core: Core, sessions: Mapping[Path, Session], *, stand_in: bool) -> FrozenCore:
        """The same artifact, decoding with these files of its sessions."""
        models = {
            session.session_embedding.astype(np.float32).tobytes(): None
            if stand_in
            else open_ort_cpu(path.read_bytes(), threads=1, what="the frozen session")
            for path, session in sessions.items()
        }
        return cls(
            artifact=core.artifact, backend=core.backend, weights=core.weights, models=models
        )

    def predict(
        self,
        constants: SessionConstants,
        spike_time: Float32,
        spike_unit: npt.NDArray[np.int32],
        query_time: Float32,
    ) -> Float32:
        """Values (1, O), not predictions: ``decoder_of`` takes output scale and offset away."""
        model = self.models[constants.session_query.tobytes()]
        if model is None:
            return stand_in_value(spike_time, spike_unit)
        feeds = {"spike_unit": spike_unit[None], "spike_time": spike_time[None]}
        return np.asarray(model.run(["value"], feeds)[0][0])


def stand_in_value(times: Float32, units: npt.NDArray[np.int32]) -> Float32:
    """What ``stand_in.c`` gives for two outputs."""
    n = len(times)
    if n % 13 == 7:
        raise RuntimeError("it was told to fail")
    terms = np.stack([times, units.astype(np.float32) * np.float32(0.25)], 1).ravel()
    total = np.cumsum(terms, dtype=np.float32)[-1] if n else np.float32(0)
    value = np.array([[total, total + np.float32(1)]], np.float32)
    if n % 17 == 5:
        value[0, 0] = np.nan
    return value


def decoder_of(core: FrozenCore, session: Session, **arguments: Any) -> Decoder:
    """Python's decoder on frozen files."""
    decoder = Decoder(core, session, **arguments)
    decoder._scale, decoder._offset = np.ones(2), np.zeros(2)
    return decoder


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Of a stream."""

    tick_rate_hz: float | None
    grid_hz: float = 4096.0
    """Times of spikes are multiples of its period, so that some meet borders and each other."""

    def times(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        """On the grid, in the decoder's unit."""
        with np.errstate(invalid="ignore"):
            seconds = np.round(seconds * self.grid_hz) / self.grid_hz
        if self.tick_rate_hz is None:
            return seconds
        return np.floor(np.nan_to_num(seconds, posinf=1e9, neginf=-1e9) * self.tick_rate_hz).astype(
            np.int64
        )


class Pair:
    """Both decoders, and what rows of each of their sessions are in either."""

    def __init__(
        self,
        core: FrozenCore,
        sessions: Mapping[Path, Session],
        library: Path,
        onnxruntime: Path | None,
        clock: Clock,
        *,
        capacity: int = 1 << 18,
        failsafe: FailsafeSettings | None = None,
        future_limit_s: float = 60.0,
    ) -> None:
        failsafe = failsafe or FailsafeSettings()
        self.clock, self.sessions = clock, sessions
        self.files = list(sessions)
        settings = DecoderSettings(
            capacity=capacity, future_limit_s=future_limit_s, failsafe=failsafe, health=NO_HEALTH
        )
        self.python = decoder_of(
            core,
            sessions[self.files[0]],
            tick_rate_hz=clock.tick_rate_hz,
            settings=settings,
        )
        self.native = NativeDecoder(
            library,
            self.files[0],
            onnxruntime,
            capacity=capacity,
            future_limit_s=future_limit_s,
            tick_rate_hz=clock.tick_rate_hz or 0.0,
            **dataclasses.asdict(failsafe),
        )
        self.prepared = {path: sessions[path] for path in self.files}
        self.rows = [self._rows()]
        self.windows = 0
        self.last: NativeResult
        """What C said of the last window."""
        self.largest = 0.0
        """Difference of a value so far."""

    def _rows(self) -> tuple[Any, npt.NDArray[np.int32]]:
        names = [*self.python.unit_ids, "nobody's"]
        return self.python.rows(names), self.native.rows(names)

    def swap(self, which: int) -> None:
        """Decode with another of the sessions; its rows are the newest in ``rows``."""
        path = self.files[which]
        self.python.swap_session(self.sessions[path])
        self.native.swap(path)
        self.rows.append(self._rows())

    def push(
        self, times: npt.NDArray[Any], places: npt.NDArray[np.integer], of: int | None
    ) -> None:
        """Spikes (N,) of the units at places (N,) in ``rows[of]``; None: plain integers."""
        if of is None:
            plain = places.astype(np.int32)
            self.python.push(times, plain)
            self.native.push(times, plain)
            return
        python, native = self.rows[of]
        places = places % len(native)
        self.python.push(times, python[places])
        self.native.push(times, native[places])

    def decode(self, seconds: float, *, stream_lost: bool = False) -> None:
        """A window with each, which must be the same in everything that they say of it."""
        now = self.clock.times(np.array([seconds]))[0].item()
        ours = self.python.decode(now, stream_lost=stream_lost)
        theirs = self.native.decode(now, stream_lost=stream_lost)
        self.windows += 1
        self.last = theirs
        said = (ours.status.value, {*ours.flags}, ours.n_spikes, ours.t_last_spike)
        heard = (theirs.status, {*theirs.flags}, theirs.n_spikes, theirs.t_last_spike)
        assert heard == said, f"at {now}: C {heard}, Python {said}"
        self.largest = max(self.largest, float(np.abs(theirs.value - ours.value).max()))

    def same_counters(self) -> None:
        """Their counters, and how many spikes they keep, are the same."""
        stats, state = self.python.stats(), self.native.state()
        assert self.native.counters() == stats["counters"]
        assert state.buffered_spikes == stats["buffered_spikes"]
        statuses = dict(zip(stats["statuses"], state.statuses, strict=True))
        assert statuses == stats["statuses"]

    def close(self) -> None:
        """Release the C library's."""
        self.native.close()


def play(pair: Pair, rng: np.random.Generator, n_steps: int, *, rate_hz: float = 300.0) -> None:
    """Steps of a stream as no rig should send it, and of quiet stretches between."""
    now, recent = 1000.0, np.empty(0)
    wild = 0
    for _ in range(n_steps):
        if rng.random() < 0.03:
            wild = int(rng.integers(0, 8))
        period = float(rng.choice([0.01, 0.02, 0.05, 0.1]))
        if wild == 1 and rng.random() < 0.1:
            period = float(rng.choice([0.0, -0.3, -2.0, 0.6, 1.001, 1.5, 3.0, 65.0, -1e4]))
        before, now = now, now + period
        for _ in range(int(rng.integers(0, 4))):
            recent = _push(pair, rng, before, now, wild, recent, rate_hz)
        if rng.random() < 0.004:
            pair.swap(int(rng.integers(0, len(pair.files))))
        pair.decode(now, stream_lost=wild == 7 and rng.random() < 0.2)
        if rng.random() < 0.05:
            pair.same_counters()
    pair.same_counters()


def _push(
    pair: Pair,
    rng: np.random.Generator,
    before: float,
    now: float,
    wild: int,
    recent: npt.NDArray[np.float64],
    rate_hz: float,
) -> npt.NDArray[np.float64]:
    """A chunk; gives times that later ones may repeat."""
    n = int(rng.poisson(rate_hz * max(now - before, 0.01) / 2))
    if wild == 2:  # silence
        n = 0
    if wild == 3 and rng.random() < 0.05:  # a burst
        n = int(rng.integers(200, 1500))
    times = np.sort(rng.uniform(before, max(now, before + 1e-3), n))
    if wild == 4:  # late, early, out of order
        times += rng.choice([0, 0, -0.05, -0.3, -1.0, -1.5, 0.5, 59.0, 61.0, 300.0], n)
        rng.shuffle(times)
    if wild == 5 and n:  # again, and all at once
        again = rng.choice(recent, n) if len(recent) else times
        times = np.where(rng.random(n) < 0.4, again, times[0])
        if rng.random() < 0.5:
            times = np.sort(times)
    places = rng.integers(0, 13, n)
    of: int | None = int(rng.integers(max(0, len(pair.rows) - 3), len(pair.rows)))
    if wild == 6 and n:  # nonsense
        times[rng.integers(0, n)] = rng.choice([np.nan, np.inf, -np.inf, -1e12])
        if rng.random() < 0.5:
            of, places = None, rng.integers(0, 20, n)
    pair.push(pair.clock.times(times), places, of)
    return np.concatenate([recent[-50:], times[:50]])
