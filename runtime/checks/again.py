"""A journal decoded again: does each value come out as it went out?

Legend: D dimensions.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.artifact import SESSIONS, Artifact, Session
from poyo_edge.errors import SessionError, UsageError
from poyo_edge.journal import Decoded, Journal, Spikes, Swap, swap_of
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.backends import BEHIND, list_backends
from poyo_edge.runtime.backends.machine import same_bits
from poyo_edge.runtime.checks.verify import WORST_SD, Check
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.failsafe import Status
from poyo_edge.runtime.result import Result

_NOT_DECODED = (Status.HELD.value, Status.INVALID.value)
"""The backend failed: a good value from before was given instead."""
_SHORT = 12
_FITTED = (
    "; one that the run fitted itself is in no journal: poyo-edge run --calibrate keeps it with "
    "--save-session NAME.session"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Again(JsonRecord):
    """What came of it."""

    checks: tuple[Check, ...]
    backend: str
    exact: bool
    """Whether the same bits were asked for; else values within the tolerance."""
    values: int
    """Decoded values in the journal."""
    equal: int
    """The same bits."""
    within: int
    """Other bits, within the tolerance."""
    differ: int
    not_decoded: int
    """HELD and INVALID ones, which no backend decoded: not compared."""
    spikes: int
    swaps: int
    bytes_left_out: int

    @property
    def ok(self) -> bool:
        """Whether all checks hold."""
        return all(check.ok for check in self.checks)


def decoded_again(
    journal: Journal,
    decoder: Decoder,
    session_of: Callable[[Swap], Session] | None = None,
) -> Iterator[tuple[Decoded, Result]]:
    """Push, swap, reset and decode in the journal's order: each value, and the one of now.

    Args:
        journal: of a loop.
        decoder: opened with the session and the tick rate that the journal begins with.
        session_of: gives the session of a swap; None refuses journals with swaps.

    Raises:
        UsageError: a swap without ``session_of``, or what that raises.
    """
    lost = False
    for entry in journal.entries():
        if isinstance(entry, Spikes):
            decoder.push(entry.ticks, decoder.units.own(entry.rows))
        elif isinstance(entry, Decoded):
            yield entry, decoder.decode(entry.tick, stream_lost=lost)
        elif isinstance(entry, dict) and "stream_lost" in entry:
            lost = bool(entry["stream_lost"])
        elif isinstance(entry, dict) and entry.get("clock") == "discontinuity":
            decoder.reset()
        elif (swap := swap_of(entry)) is not None:
            if session_of is None:
                raise UsageError(
                    f"{journal.path}: expected one session all along, got a swap to "
                    f"{swap.session_id!r}; give the sessions"
                )
            decoder.swap_session(session_of(swap))


def verify_journal(
    path: str | Path,
    artifact: str | Path,
    sessions: Sequence[str | Path] = (),
    *,
    threads: int = 1,
) -> Again:
    """Decode every value of a journal again and compare.

    Bit for bit where backend, precision, processor and libraries are those of the run, else within
    the tolerance of the golden windows.

    Args:
        path: the journal.
        artifact: what it was decoded with.
        sessions: files of sessions that are not in the artifact.
        threads: for one window; more than in the run may change the last bits.

    Raises:
        RecordingError: not a journal.
        UsageError: of another core, or a session is missing.
        ArtifactError, SessionError: a file is damaged.
    """
    journal, opened = Journal(path), Artifact.open(artifact)
    start = journal.start
    _require_core(journal, opened)
    known = _Sessions(opened, sessions)
    first = known.of_start(journal)
    decoder = Decoder.open(
        artifact,
        first,
        backend=_backend(start),
        threads=threads,
        tick_rate_hz=journal.header.tick_rate_hz,
    )
    exact, why = _exact(start, decoder)
    compared = _Comparison(journal, decoder, exact, _allowed(opened, start, decoder))
    for value, again in decoded_again(journal, decoder, known.of_swap):
        compared.look(value, again)
    return Again(
        checks=(_whole(journal), compared.check(why)),
        backend=decoder.backend,
        exact=exact,
        values=compared.values,
        equal=compared.equal,
        within=compared.within,
        differ=compared.differ,
        not_decoded=compared.not_decoded,
        spikes=decoder.stats()["counters"]["received"],
        swaps=known.swaps,
        bytes_left_out=journal.bytes_left_out,
    )


class _Sessions:
    """Sessions by what a journal says of them."""

    def __init__(self, artifact: Artifact, files: Sequence[str | Path]) -> None:
        self._all = [artifact.session(Path(file)) for file in files]
        for file in sorted((artifact.path / SESSIONS).glob("*.session")):
            with contextlib.suppress(SessionError):  # it is missed only if the journal names it
                self._all.append(artifact.session(file))
        self.swaps = 0

    def of_start(self, journal: Journal) -> Session:
        """The session that a journal begins with: by its hash, or in 0.1.0 by name and units."""
        header, said = journal.header, (journal.start or {}).get("session")
        if isinstance(said, dict):
            return self._of(str(said.get("session_id")), str(said.get("sha256")))
        name = header.session_id.rpartition("-")[0]  # 0.1.0: ID-DATE
        found = {
            one.digest: one
            for one in self._all
            if (one.header.session_id, one.header.unit_ids) == (name, header.unit_ids)
        }
        if len(found) > 1:
            raise UsageError(
                f"session {name!r}: expected one of that name, as the journal holds no hash, got "
                f"{len(found)}; leave out all but the one that was used"
            )
        if found:
            return next(iter(found.values()))
        raise _missing(name, "", [one.header.session_id for one in self._all])

    def of_swap(self, swap: Swap) -> Session:
        """The session that was swapped in."""
        self.swaps += 1
        return self._of(swap.session_id, swap.sha256, _FITTED)

    def _of(self, name: str, sha256: str, hint: str = "") -> Session:
        for one in self._all:
            if one.digest == sha256:
                return one
        raise _missing(name, sha256, [one.header.session_id for one in self._all], hint)


def _missing(name: str, sha256: str, known: list[str], hint: str = "") -> UsageError:
    hashed = f" with hash {sha256[:_SHORT]}" if sha256 else ""
    other = "; one of that name is another one" if sha256 and name in known else ""
    return UsageError(
        f"session {name!r}: expected it{hashed}, as the journal names it, got {known}{other}; give "
        f"its file with --session{hint}"
    )


def _require_core(journal: Journal, artifact: Artifact) -> None:
    said, own = (journal.start or {}).get("core"), artifact.manifest.core_hash
    if said is not None and said != own:
        raise UsageError(
            f"{journal.path}: expected an artifact with core {str(said)[:_SHORT]}, which the "
            f"journal was decoded with, got {artifact.path} with {own[:_SHORT]}; name that one "
            f"with --artifact"
        )


def _backend(start: dict[str, Any] | None) -> str:
    """The journal's, if it is here; else the one that is everywhere."""
    name = (start or {}).get("backend")
    present = [info.name for info in list_backends() if info.present]
    return name if name in present else BEHIND


def _exact(start: dict[str, Any] | None, decoder: Decoder) -> tuple[bool, str]:
    """Whether the same bits can be asked for, and what they are compared with, in words."""
    if start is None:
        return False, "the journal does not say which backend decoded it"
    here = {
        "backend": decoder.backend, "precision": decoder.precision, "machine": same_bits()
    }  # fmt: skip
    for name, value in here.items():
        if start.get(name) != value:
            return False, f"another {name} than in the run"
    return True, "the same bits"


def _allowed(artifact: Artifact, start: dict[str, Any] | None, decoder: Decoder) -> float:
    """Largest difference before the output's scale: as ``verify`` allows the less exact of two."""
    golden = artifact.golden()
    spread = np.concatenate([window["prediction"] for window in golden.windows]).std(0).mean()
    ran = start or {}
    pairs = [
        (str(ran.get("backend", BEHIND)), str(ran.get("precision", "fp32"))),
        (decoder.backend, decoder.precision),
    ]
    worst = [
        WORST_SD.get(precision, max(WORST_SD.values())) * float(spread)
        for backend, precision in pairs
        if backend != BEHIND
    ]
    return max([golden.tolerance, *worst])


class _Comparison:
    """Counts, and remembers the first difference."""

    def __init__(self, journal: Journal, decoder: Decoder, exact: bool, allowed: float) -> None:
        self._rate = journal.header.tick_rate_hz
        self._exact, self._allowed = exact, allowed
        manifest = decoder.artifact.manifest
        self._scale, _ = manifest.output.arrays(manifest.spec.dim_out)
        self._first = ""
        self.values = self.equal = self.within = self.differ = self.not_decoded = 0

    def look(self, value: Decoded, again: Result) -> None:
        """Compare one value (D,)."""
        self.values += 1
        if value.status in _NOT_DECODED:
            self.not_decoded += 1
            return
        problem = self._problem(value, again)
        if not problem:
            return
        self.differ += 1
        self._first = self._first or (
            f"value {self.values}, tick {value.tick} ({value.tick / self._rate:.6f} s), session "
            f"{again.session_id}: {problem}"
        )

    def _problem(self, value: Decoded, again: Result) -> str:
        """What differs, in words; counts what does not."""
        if value.n_spikes != again.n_spikes:
            return f"expected {value.n_spikes} spikes in its window, got {again.n_spikes}"
        said = f"expected {_text(value.value)}, got {_text(again.value)}"
        if value.value.shape != again.value.shape:
            return said
        if value.value.tobytes() == again.value.tobytes():
            self.equal += 1
            return ""
        worst = float(np.abs((again.value - value.value) / self._scale).max())
        fell_back = "fallback" in value.flags or "fallback" in again.flags
        if (fell_back or not self._exact) and worst <= self._allowed:
            self.within += 1
            return ""
        return f"{said}, off by {worst:.3g} of the output's scale"

    def check(self, why: str) -> Check:
        """The check of all values."""
        if not self.values:
            return Check(name="values", ok=False, detail="the journal holds no decoded value")
        against = why if self._exact else f"tolerance {self._allowed:.2e}, {why}"
        counts = f"{self.values} values, {self.equal} equal, {self.within} within tolerance, "
        counts += f"{self.differ} differ, {self.not_decoded} not decoded in the run ({against})"
        first = f"; the first: {self._first}" if self._first else ""
        return Check(name="values", ok=not self.differ, detail=counts + first)


def _whole(journal: Journal) -> Check:
    """Cut off by a crash is as it should be; damaged is not."""
    left = journal.bytes_left_out
    if journal.damaged:
        detail = f"damaged: {left} bytes from there on were not looked at"
    else:
        detail = f"cut off, {left} bytes of a last frame" if left else "every frame is whole"
    return Check(name="journal", ok=not journal.damaged, detail=detail)


def _text(value: np.ndarray[Any, Any]) -> str:
    return "[" + ", ".join(f"{one:.6g}" for one in value.tolist()) + "]"
