"""The gate before the session in use: what a new one is compared with, on which samples, and why.

A new session passes when it decodes held-out blocks better than holding the mean, and no worse
than the session in use decodes the same samples. A session in use that was fitted to part of these
labels knows the held-out blocks: it is judged on labels that came later, and stays while there are
too few of them.

Legend: S judged samples, O outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Bool, Float64
from poyo_edge.artifact import Session
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.judging import Judged
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.search import Search
from poyo_edge.records import JsonRecord

_LATER_S, _LATER_BLOCKS = 5.0, 2
"""Fewer held-out seconds or blocks of later labels say nothing."""
_SAME_LABELS = "the session in use was fitted to this session too: it is not compared"
_OTHER_UNITS = "the session in use has none of these units: it is no rival"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compared(JsonRecord):
    """A new session beside the one in use, on the same held-out samples."""

    r2: float | None
    """Of the new session, mean over dimensions; None where nothing could be compared."""
    r2_in_use: float | None
    later_only: bool = False
    """Whether only labels later than those that the session in use learned from were judged."""
    later_s: float | None = None
    """Held-out seconds of such labels, enough or not; None where all labels count."""
    note: str = ""
    """What was odd, in words; "" for nothing."""

    @property
    def undecided(self) -> bool:
        """Whether too few labels are later than what the session in use learned from."""
        return self.later_only and self.r2_in_use is None


def compare(
    adapter: Adapter,
    search: Search,
    unit_ids: Sequence[str],
    in_use: Session,
    learned_until: float | None,
) -> Compared:
    """Judge the session in use and the new one on the same held-out samples.

    Args:
        adapter: the model.
        search: the fit of the new session, ended.
        unit_ids: of the new session; rows of the labels count along them.
        in_use: what decodes now.
        learned_until: time of the last of these labels that it was fitted to (``learned_until``);
            None when it was fitted to none of them.
    """
    row = {unit: i for i, unit in enumerate(in_use.header.unit_ids)}
    shared = [i for i, unit in enumerate(unit_ids) if unit in row]
    if not shared:
        return Compared(r2=None, r2_in_use=None, note=_OTHER_UNITS)
    later, later_s = None, None
    if learned_until is not None:
        later = _later(search, learned_until + adapter.window_s)
        later_s = round(float(later.sum()) * search.labels.period, 2)
        if not _enough(search.chosen.judged, later, later_s):
            return Compared(r2=None, r2_in_use=None, later_only=True, later_s=later_s,
                            note=_SAME_LABELS)  # fmt: skip
    units = in_use.unit_embedding[[row[unit_ids[i]] for i in shared]]
    labels = search.labels.of_units(np.array(shared))

    def predict(fold: int) -> Float64:
        samples = search.fits[fold].judged()
        return adapter.predict(labels, samples, units, in_use.session_embedding)

    theirs = search.judge(predict)
    return Compared(
        r2=_r2(search.chosen.judged, later),
        r2_in_use=_r2(theirs, later),
        later_only=later is not None,
        later_s=later_s,
        note="" if later is None else f"the session in use was fitted to part of these labels: "
        f"both are judged on {later_s:.0f} s of later ones",
    )  # fmt: skip


def learned_until(
    session: Session, session_id: str, labels: Labels, known: float | None
) -> float | None:
    """Time of the last of these labels that a session was fitted to; None if it was to none.

    An earlier fit of the same calibration knows it (``known``). A file that names the same session
    says for how many labelled seconds: the first ones.
    """
    header = session.header
    if header.method != "calibration" or header.session_id != session_id:
        return None
    if known is not None:
        return known
    if header.labelled_s is None:
        return float(labels.times[-1])
    times = labels.until(header.labelled_s).times
    return float(times[-1]) if len(times) else None


def refusal(
    session_id: str,
    r2_heldout: float,
    r2_per_dim: Sequence[float],
    labelled_s: float,
    compared: Compared | None,
) -> str | None:
    """Why a new session is not taken, in words; None when it passes."""
    dims = ", ".join(f"{r2:.3f}" for r2 in r2_per_dim)
    got = f"got {r2_heldout:.3f} (per dimension {dims}) on held-out blocks of "
    got += f"{labelled_s:.0f} labelled s"
    more = "check that labels and spikes are of the same time and in the same order, give "
    more += "more labelled data, or force it (force=True, --force)"
    if not r2_heldout > 0:
        return (
            f"session {session_id!r}: expected an R² above 0, which holding the mean has, {got}; "
            f"the session was not taken: {more}"
        )
    if compared is None:
        return None
    if compared.undecided:
        return (
            f"session {session_id!r}: expected at least {_LATER_S:g} s in {_LATER_BLOCKS} held-out "
            f"blocks later than the labels that the session in use was fitted to, got "
            f"{compared.later_s:g} s; the session in use stays: give more labelled data, or force "
            f"it (force=True, --force)"
        )
    if compared.r2_in_use is None:
        return None
    if compared.later_only:
        got = f"got {compared.r2:.3f} on {compared.later_s:.0f} s of labels that neither learned"
    if compared.r2 is None or not compared.r2 >= compared.r2_in_use:
        return (
            f"session {session_id!r}: expected an R² of at least {compared.r2_in_use:.3f}, which "
            f"the session in use has on the same samples, {got}; the session in use stays: {more}"
        )
    return None


def _later(search: Search, since: float) -> Bool:
    """(S,) judged samples whose window begins at ``since`` minus a window or later."""
    samples = np.concatenate([fit.judged() for fit in search.fits[:-1]])
    return np.asarray(search.labels.times[samples] >= since)


def _enough(judged: Judged, later: Bool, later_s: float) -> bool:
    blocks = len(np.unique(judged.block[later]))
    moves = bool(later.any()) and bool((np.ptp(judged.truth[later], axis=0) > 0).all())
    return later_s >= _LATER_S and blocks >= _LATER_BLOCKS and moves


def _r2(judged: Judged, rows: Bool | None) -> float:
    if rows is not None:
        judged = Judged(
            truth=judged.truth[rows], decoded=judged.decoded[rows], block=judged.block[rows]
        )
    return float(judged.r2().mean())
