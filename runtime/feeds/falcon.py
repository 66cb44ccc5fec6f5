"""A decoder for FALCON, the few-shot algorithms for consistent neural decoding challenge.

FALCON gives spike counts of 20 ms and takes one value per bin. POYO reads spike times: the counts
of a bin are spread evenly over it, so everything finer than 20 ms is lost (``docs/feeds.md``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Rows
from poyo_edge.artifact import Artifact
from poyo_edge.errors import MissingExtraError, UsageError
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.feeds.wire.parsing import MOST_IN_BIN, first_no_count, spread_counts
from poyo_edge.runtime.unit_names import UnitNames

_RATE = 1_000_000_000


class BinDecoder:
    """Decodes counts bin by bin, for several sessions at once; FALCON's methods without its class.

    Args:
        artifact: the folder ``NAME.poyo``.
        sessions: dataset tag → a ``.session`` file or id; a tag that is missing is looked up among
            the artifact's own sessions.
        batch_size: sessions that are decoded side by side.
        bin_ms: length of a bin.
        backend, threads: see ``Decoder.open``.
    """

    def __init__(
        self,
        artifact: str | Path,
        *,
        sessions: Mapping[str, str | Path] | None = None,
        batch_size: int = 1,
        bin_ms: float = 20.0,
        backend: str = "auto",
        threads: int = 1,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size: expected at least 1, got {batch_size!r}")
        self._artifact = Artifact.open(artifact)
        self._sessions = dict(sessions or {})
        self._bin = round(bin_ms * 1e6)
        self._open = {"backend": backend, "threads": threads, "tick_rate_hz": _RATE}
        self._decoders: list[Decoder] = []
        self._n_open = 0
        self._rows: dict[tuple[int, int], Rows] = {}
        self._tick = 0
        self._compute_s = self._neural_s = 0.0
        self.batch_size = batch_size

    def reset(self, dataset_tags: Sequence[Any] = ("",)) -> None:
        """Begin with the sessions of these tags: one for each row of the counts to come.

        Raises:
            UsageError: no session is known for a tag.
        """
        sessions = [self._session(self.tag_of(tag)) for tag in dataset_tags]
        while len(self._decoders) < len(sessions):
            first = sessions[len(self._decoders)]
            made = Decoder.open(self._artifact.path, session=first, **self._open)  # type: ignore[arg-type]
            self._decoders.append(made)
        self._n_open, self._rows = len(sessions), {}
        for decoder, session in zip(self._decoders, sessions, strict=False):
            decoder.swap_session(session)
            decoder.reset()
        self._tick = 0

    def tag_of(self, tag: Any) -> str:
        """The name of a dataset; FALCON's class takes its hash."""
        return tag.stem if isinstance(tag, Path) else str(tag)

    def predict(self, neural_observations: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(B, O) values at the end of a bin of counts (B, C).

        Channel ``i`` (from 0) is row ``i`` of the session when it has C units, else ``ch{i}``.

        Raises:
            UsageError: before ``reset``, more rows than it named, channels of no unit, or numbers
                that are no counts.
        """
        began = time.perf_counter()
        counts = np.asarray(neural_observations)
        if counts.ndim != 2 or len(counts) > self._n_open:
            raise UsageError(
                f"predict: expected counts (B, C) for the {self._n_open} datasets that reset "
                f"named, got shape {counts.shape}"
            )
        self._tick += self._bin
        values = [self._one(i, row) for i, row in enumerate(counts)]
        self._compute_s += time.perf_counter() - began
        self._neural_s += self._bin / _RATE * len(counts)
        return np.stack(values)

    def observe(self, neural_observations: npt.NDArray[Any]) -> None:
        """Counts of a bin whose value nobody asks for."""
        counts = np.asarray(neural_observations)
        self._tick += self._bin
        for i, row in enumerate(counts[: self._n_open]):
            self._push(i, row)

    def on_done(self, dones: npt.NDArray[Any]) -> None:
        """Ends of trials change nothing: the window moves on."""

    def set_batch_size(self, batch_size: int) -> None:
        """How many sessions are decoded side by side from the next ``reset`` on."""
        self.batch_size = batch_size

    @property
    def normalized_latency(self) -> float:
        """Seconds of computing per second of neural data, as FALCON reports it."""
        return self._compute_s / self._neural_s if self._neural_s else 0.0

    def _one(self, i: int, counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        self._push(i, counts)
        return self._decoders[i].decode(self._tick).value

    def _push(self, i: int, counts: npt.NDArray[Any]) -> None:
        at = first_no_count(np.nan_to_num(np.asarray(counts, np.float64)))
        if at is not None:  # NaN is FALCON's mark of what was not recorded.
            raise UsageError(
                f"predict: expected whole counts of 0 to {MOST_IN_BIN}, got {counts[at]:.4g} of "
                f"channel {at}; give counts of spikes that are not normalised"
            )
        ticks, channels = spread_counts(counts, self._tick, self._bin)
        decoder = self._decoders[i]
        decoder.push(ticks, self._channel_rows(i, len(counts))[channels])

    def _channel_rows(self, i: int, n_channels: int) -> Rows:
        """(C,) rows of all units, or of ``ch0`` …; -1 where the session has no such unit."""
        rows = self._rows.get((i, n_channels))
        if rows is None:
            units = self._decoders[i].unit_ids
            as_many = n_channels == len(units)
            rows = (
                self._decoders[i].rows(units)
                if as_many
                else UnitNames(units).rows([f"ch{c}" for c in range(n_channels)])
            )
            if not (rows >= 0).any():
                raise UsageError(
                    f"predict: expected counts of {len(units)} channels, one for each unit of "
                    f"session {self._decoders[i].session_id!r}, or units named ch0, ch1 …, got "
                    f"{n_channels} channels and units like {units[0]!r}"
                )
            self._rows[i, n_channels] = rows
        return rows

    def _session(self, tag: str) -> Any:
        own = self._artifact.session_files()
        name = self._sessions.get(tag)
        if name is None:
            ends = [one for one in own if one == tag or one.rpartition("/")[2] == tag]
            if len(ends) != 1:
                raise UsageError(
                    f"reset: expected a session for {tag!r}, got none in sessions and {len(ends)} "
                    f"of the artifact's {list(own)[:6]}; name one in sessions"
                )
            name = ends[0]
        return self._artifact.session(name)


def falcon_decoder(task_config: Any, artifact: str | Path, **arguments: Any) -> Any:
    """A ``BCIDecoder`` that FALCON's evaluator drives; arguments as of ``BinDecoder``.

    Datasets are told apart by ``task_config.hash_dataset``; ``sessions`` is keyed by these hashes.

    Raises:
        MissingExtraError: falcon-challenge is not installed.
        UsageError: the model decodes another number of dimensions than the task wants.
    """
    try:
        from falcon_challenge.interface import BCIDecoder
    except ImportError:
        raise MissingExtraError("falcon-challenge", "falcon", "a FALCON decoder") from None
    dim_out = Artifact.open(artifact).manifest.spec.dim_out
    if dim_out != task_config.out_dim:
        raise UsageError(
            f"{artifact}: expected a model of {task_config.out_dim} dimensions for "
            f"{task_config.task}, got {dim_out}"
        )

    class PoyoDecoder(BinDecoder, BCIDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            BinDecoder.__init__(self, artifact, bin_ms=task_config.bin_size_ms, **arguments)
            self._task_config = task_config

        def tag_of(self, tag: Any) -> str:
            return str(task_config.hash_dataset(Path(tag).stem))

    return PoyoDecoder()
