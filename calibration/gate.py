"""The gate before the session in use: what a new one is compared with, on which samples, and why.

Labels of behaviour: a new session passes when it decodes held-out blocks better than holding the
mean, and no worse than the session in use decodes the same samples. Labels of intention are noisy
by nature, and the best decoder of them to control with need not have the best R²: a new session
passes when it decodes the direction (angular error), and no worse than the session in use.

With either, a new session must not be slower to control with than the session in use (gain on
movements and on held commands, on the same spikes), nor restless, and labels that are turned or
late against all that the session in use decodes are refused, since labels alone cannot say so.

A session in use that was fitted to part of these labels knows the held-out blocks: it is judged on
labels that came later, and stays while there are too few of them.

Legend: S judged samples, O outputs, W held commands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from poyo_edge.arrays import Bool, Float64
from poyo_edge.artifact import Session
from poyo_edge.calibration.control import Control, Relation, control_of, relation
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.judging import Judged
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.search import Search
from poyo_edge.calibration.held import held_steps
from poyo_edge.records import JsonRecord

LATER_S, LATER_BLOCKS = 5.0, 2
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
    control: Control | None = None
    """Of the new session, on the samples that were compared."""
    control_in_use: Control | None = None
    relation: Relation | None = None
    """How the labels stand to what the session in use decodes."""

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
        later_s = round(float(_each_s(search)[later].sum()), 2)
        if not _enough(search.chosen.judged, later, later_s):
            return Compared(r2=None, r2_in_use=None, later_only=True, later_s=later_s,
                            note=_SAME_LABELS)  # fmt: skip
    known = np.array([row[unit_ids[i]] for i in shared])
    units, wiener = in_use.unit_embedding[known], in_use.wiener
    own = (in_use.session_embedding, in_use.encoder, wiener and wiener.of_units(known))
    heard = np.array(shared)
    labels = search.labels.of_units(heard)

    def predict(fold: int) -> Float64:
        samples = search.fits[fold].judged()
        return adapter.predict(labels, samples, units, *own)

    def hold(_: int, windows: Labels) -> Float64:
        every = np.arange(len(windows.times))
        of_shared = windows.of_units(heard)
        return adapter.predict(of_shared, every, units, *own)

    ours, theirs = search.chosen.judged, search.judge(predict)
    rows = slice(None) if later is None else later
    times, held = _judged_times(search)[rows], _held(search, hold, later)
    return Compared(
        r2=_r2(ours, later),
        r2_in_use=_r2(theirs, later),
        control=control_in(adapter, search, later),
        control_in_use=control_of(theirs.truth[rows], theirs.decoded[rows], held),
        relation=relation(
            times, theirs.decoded[rows], labels.times, labels.values, 2 * labels.period
        ),
        later_only=later is not None,
        later_s=later_s,
        note="" if later is None else f"the session in use was fitted to part of these labels: "
        f"both are judged on {later_s:.0f} s of later ones",
    )  # fmt: skip


def compare_again(
    adapter: Adapter, search: Search, before: Compared, learned_until: float | None
) -> Compared:
    """The same, where what the search has chosen is another moment now."""
    if before.r2 is None:
        return before
    later = None if learned_until is None else _later(search, learned_until + adapter.window_s)
    return dataclasses.replace(
        before,
        r2=_r2(search.chosen.judged, later),
        control=control_in(adapter, search, later),
    )


def control_in(adapter: Adapter, search: Search, later: Bool | None = None) -> Control:
    """What the chosen moment of a search is like to control with, on its held-out blocks.

    Args:
        adapter: the model.
        search: with at least one moment.
        later: (S,) which judged samples count; None takes all.
    """
    judged, tables = search.chosen.judged, search.chosen.tables
    rows = slice(None) if later is None else later

    def hold(fold: int, windows: Labels) -> Float64:
        every = np.arange(len(windows.times))
        one = tables[fold]
        return adapter.predict(windows, every, one.units, one.session, one.encoder, one.wiener)

    return control_of(judged.truth[rows], judged.decoded[rows], _held(search, hold, later))


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


def _held(
    search: Search, decode: Callable[[int, Labels], Float64], later: Bool | None
) -> tuple[Float64, Float64] | None:
    """Held commands (W, O) of all folds, and what ``decode`` makes of a fold's windows (W, O)."""
    commands, decoded, first = [], [], 0
    for fold, fit in enumerate(search.fits[:-1]):
        samples = fit.judged()
        counts = slice(first, first + len(samples))
        first += len(samples)
        if later is not None:
            samples = samples[later[counts]]
        steps = held_steps(search.labels, samples, search.window_s, seed=fold)
        if steps is not None:
            commands.append(steps.values)
            decoded.append(decode(fold, steps))
    return (np.concatenate(commands), np.concatenate(decoded)) if commands else None


def _judged_times(search: Search) -> Float64:
    """(S,) seconds of the judged samples of all folds."""
    samples = np.concatenate([fit.judged() for fit in search.fits[:-1]])
    return np.asarray(search.labels.times[samples])


def _each_s(search: Search) -> Float64:
    """(S,) held-out seconds that each judged sample stands for: blocks are judged thinned."""
    return np.concatenate([
        np.full(len(fit.judged()), fit.judged_each_s) for fit in search.fits[:-1]
    ])  # fmt: skip


def _later(search: Search, since: float) -> Bool:
    """(S,) judged samples whose window begins at ``since`` minus a window or later."""
    return np.asarray(_judged_times(search) >= since)


def _enough(judged: Judged, later: Bool, later_s: float) -> bool:
    blocks = len(np.unique(judged.block[later]))
    moves = bool(later.any()) and bool((np.ptp(judged.truth[later], axis=0) > 0).all())
    return later_s >= LATER_S and blocks >= LATER_BLOCKS and moves


def _r2(judged: Judged, rows: Bool | None) -> float:
    if rows is not None:
        judged = Judged(
            truth=judged.truth[rows], decoded=judged.decoded[rows], block=judged.block[rows]
        )
    return float(judged.r2().mean())
