"""A stream of Lab Streaming Layer: the one of a name, opened, and found again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from poyo_edge.errors import MissingExtraError

NS = 1_000_000_000
LATEST_S = 1e9
"""LSL's clock counts from the start of a machine; later ones count from 1970."""
_CORRECT_EACH_S = 5.0
_MOST = 4096
_KEPT_HUNDREDS, _KEPT_S = 3600, 30
"""Of a stream without a rate the library keeps so many hundreds of samples, of one with a rate so
many seconds; it drops the oldest of more without a word."""
_MANY, _OTHERS_S = 1 << 10, 0.3
"""So long streams of the same name may take to answer after the first."""
_SILENT_S = 2.0
"""After so long without a sample, other outlets of the name are looked for."""


def import_pylsl() -> Any:
    """pylsl.

    Raises:
        ImportError: it is not installed.
        MissingExtraError: it is, without the library behind it.
    """
    try:
        import pylsl
    except (RuntimeError, OSError) as error:
        raise MissingExtraError("pylsl with liblsl", "lsl", f"an LSL feed ({error})") from None
    return pylsl


class Inlet:
    """What the one stream of a name brings.

    Args:
        name: of the stream.
        source_id: of the one that is meant, where several have the name; "" takes the only one.
        unlike: what is wrong with a stream's description, in a sentence; "" where nothing is.
        refused: makes what is raised for a stream of another kind.

    Raises:
        ConnectionError: no stream of that name answers.
        UsageError: several do, or it is of another kind (see ``refused``).
    """

    def __init__(
        self,
        name: str,
        source_id: str,
        unlike: Callable[[Any], str],
        refused: Callable[[str], Exception],
    ) -> None:
        self._lsl = import_pylsl()
        self.name, self.source_id = name, source_id
        self.correction_s = 0.0
        """What LSL adds to the sender's stamps."""
        self._info = self._found(unlike, refused)
        irregular = self._info.nominal_srate() == self._lsl.IRREGULAR_RATE
        keep = _KEPT_HUNDREDS if irregular else _KEPT_S
        self._inlet = self._lsl.StreamInlet(self._info, max_buflen=keep, recover=False)
        self._others: Any = None
        self._corrected, self._heard = -np.inf, time.monotonic()

    def open(self) -> None:
        """Begin to receive.

        Raises:
            pylsl.LostError: the stream is gone.
        """
        self._inlet.open_stream(timeout=2.0)

    def pull(
        self, timeout_s: float, gather_s: Callable[[], float] = lambda: 0.0
    ) -> tuple[list[Any], list[float]]:
        """Samples and stamps that have come, the latter as the sender wrote them.

        Args:
            timeout_s: wait so long for the first.
            gather_s: says then for how long others may join it.

        Raises:
            ConnectionError: only another outlet of the name answers.
            pylsl.LostError: the stream is gone.
        """
        if time.monotonic() - self._corrected > _CORRECT_EACH_S:
            self.correction_s = float(self._inlet.time_correction(timeout=2.0))
            self._corrected = time.monotonic()
        sample, stamp = self._inlet.pull_sample(timeout=timeout_s)
        if sample is None:
            self._look_for_others()
            return [], []
        self._heard = time.monotonic()
        # With a timeout the library waits for all of it, or for so many samples.
        more, stamps = self._inlet.pull_chunk(timeout=gather_s(), max_samples=_MOST)
        return [sample, *more], [stamp, *stamps]

    def close(self) -> None:
        """Let the stream go."""
        self._inlet.close_stream()

    def _look_for_others(self) -> None:
        """Break off where only another outlet of the name answers: this one hangs, or is gone."""
        if time.monotonic() - self._heard <= _SILENT_S:
            return
        if self._others is None:
            self._others = self._lsl.ContinuousResolver("name", self.name)
        answers = self._others.results()
        uids = [one.uid() for one in answers if self.source_id in ("", one.source_id())]
        if uids and self._info.uid() not in uids:
            raise ConnectionError(f"the LSL stream {self.name!r} came back as another outlet")

    def _found(self, unlike: Callable[[Any], str], refused: Callable[[str], Exception]) -> Any:
        """The one stream that is meant, if it is of the kind."""
        answers = self._lsl.resolve_byprop("name", self.name, 1, timeout=1.0)
        if answers:  # others may need a moment longer
            answers = self._lsl.resolve_byprop("name", self.name, _MANY, timeout=_OTHERS_S)
        named = {info.uid(): info for info in answers}
        meant = [one for one in named.values() if self.source_id in ("", one.source_id())]
        if not named:
            raise ConnectionError(f"no LSL stream named {self.name!r} answers")
        listed = "; ".join(described(info) for info in named.values())
        if len(meant) != 1:
            raise refused(
                f"lsl://{self.name}: expected one stream"
                f"{f' with source_id {self.source_id!r}' if self.source_id else ''}, got "
                f"{len(meant)} of {listed}; choose with lsl://{self.name}?source_id=..."
            )
        if said := unlike(meant[0]):
            raise refused(f"lsl://{self.name}: {said}")
        return meant[0]


def described(info: Any) -> str:
    """What a stream says of itself."""
    rate = info.nominal_srate()
    pace = f"{rate:g} Hz" if rate else "irregular"
    return (
        f"source_id {info.source_id()!r} on {info.hostname()} (type {info.type()!r}, "
        f"{info.channel_count()} channel(s), {pace})"
    )
