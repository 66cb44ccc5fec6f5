"""Where a fit begins, and which of two that began elsewhere is taken.

A fit may begin with the first guess (``fit.start``) or with the session in use. Neither is always
better: what was learned yesterday is a good start where the array is the same, and a bad one where
it is not. Both are fitted where time allows, and the better one by the gate is taken.

The first guess may rest on the names of electrodes that training has seen. Where names match by
accident, or an array was moved, it holds units to what they are not. Held-out blocks tell: a guess
that is right is clearly ahead of a Wiener filter on the same labels. Where it is not, a further fit
begins with what is true of any unit, as in an animal that nobody knows.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from poyo_edge.artifact import Session
from poyo_edge.calibration.calibrated import Quality, beside_filter, candidate
from poyo_edge.calibration.control import top_speed
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.beside import WienerBeside, mix, wiener_beside
from poyo_edge.calibration.fit.judging import Judged, Point
from poyo_edge.calibration.fit.pace import Progress
from poyo_edge.calibration.fit.resuming import ResumeFile
from poyo_edge.calibration.fit.search import ALL_STEPS, PAST_BEST, OnProgress, Search
from poyo_edge.calibration.gate import Compared, compare, compare_again, control_in
from poyo_edge.calibration.intention import IntentionReport
from poyo_edge.calibration.refusing import refusal

FIRST_GUESS, START, IN_USE = "first guess", "start", "session in use"
NOTHING_KNOWN = "no unit known"
_BESIDE = {IN_USE: ".in_use", NOTHING_KNOWN: ".unknown"}
"""What the names of further searches' files end with."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """A search that has ended, and what it is worth."""

    search: Search
    quality: Quality
    beside: WienerBeside | None = None
    """A Wiener filter on the same labels, once it was asked for."""

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self.search.stopped in (PAST_BEST, ALL_STEPS)

    @property
    def undecided(self) -> bool:
        """Whether too few labels say which is better, this or the session in use."""
        return self.quality.compared is not None and self.quality.compared.undecided


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judge:
    """Says what a search is worth, beside the session in use."""

    session_id: str
    adapter: Adapter
    unit_ids: Sequence[str]
    in_use: Session | None
    learned_until: float | None
    """See ``gate.compare``."""
    reports: tuple[IntentionReport, ...]
    notes: tuple[str, ...]
    began: float
    """Of the fit, ``time.monotonic``."""

    def fitted(self, search: Search, started: str, notes: Sequence[str]) -> Fitted:
        """The search with its quality."""
        compared = None
        if self.in_use is not None:
            compared = compare(self.adapter, search, self.unit_ids, self.in_use, self.learned_until)
        quality = self._quality(search, compared, (*self.notes, *notes), started)
        return Fitted(search=search, quality=quality)

    def _quality(
        self, search: Search, compared: Compared | None, notes: Sequence[str], started: str
    ) -> Quality:
        judged, point = search.chosen.judged, search.chosen.point
        noted = [compared.note] if compared is not None and compared.note else []
        return Quality(
            r2_heldout=point.r2,
            r2_per_dim=point.r2_per_dim,
            r2_interval=_interval(judged),
            n_judged=len(judged.truth),
            r2_in_use=None if compared is None else compared.r2_in_use,
            labelled_s=search.labels.seconds,
            steps=point.step,
            wall_s=time.monotonic() - self.began,
            stopped=search.stopped,
            curve=tuple(search.curve),
            silent_units=tuple(self.unit_ids[i] for i in search.labels.silent()),
            notes=(*noted, *notes, *_weak_points(point)),
            compared=compared,
            control=control_in(self.adapter, search),
            label_speed=top_speed(judged.truth),
            labels=self.reports,
            started=started,
            encoder=search.chosen.tables[-1].encoder is not None,
        )

    def mixed(self, found: Fitted) -> Fitted:
        """With the filter beside it mixed in, where that decodes held-out blocks better."""
        search, quality, beside = found.search, found.quality, found.beside
        unmixed = quality.r2_heldout
        if beside is None or not search.settings.mix or not mix(search, beside):
            return found
        compared, chosen = quality.compared, search.chosen
        if compared is not None:
            compared = compare_again(self.adapter, search, compared, self.learned_until)
        filtered = chosen.tables[-1].wiener
        quality = dataclasses.replace(
            quality,
            r2_heldout=chosen.point.r2,
            r2_per_dim=chosen.point.r2_per_dim,
            r2_interval=_interval(chosen.judged),
            compared=compared,
            control=control_in(self.adapter, search),
            wiener_share=0.0 if filtered is None else filtered.share,
            r2_unmixed=unmixed,
        )
        quality = beside_filter(quality, search, beside)
        if unmixed <= 0.0:
            carried = (
                f"the model alone decodes held-out blocks no better than their mean (R² "
                f"{unmixed:.3f}): the Wiener filter that is mixed in carries this session"
            )
            quality = dataclasses.replace(quality, notes=(*quality.notes, carried))
        return dataclasses.replace(found, quality=quality)


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Turns:
    """Searches one after the other, as far as the time goes."""

    deadline: float
    stop: threading.Event
    on_progress: OnProgress
    steps: int
    """Of the searches to come."""
    done: int = 0
    """Of those before."""

    def run(
        self, search: Search, judge: Judge, on_judged: Callable[[], None] = lambda: None
    ) -> float:
        """Run one; the seconds that it took."""
        began = time.monotonic()
        self.steps -= search.steps * len(search.fits)
        search.run(
            self.deadline - began,
            self.stop,
            self._note,
            on_judged=on_judged,
            rival=judge.in_use is not None,
        )
        self.done += sum(fit.steps for fit in search.fits)
        return time.monotonic() - began

    def expect(self, search: Search) -> None:
        """One more that is to come."""
        self.steps += search.steps * len(search.fits)

    def allow(self, seconds: float) -> bool:
        """Whether there is so much time."""
        return not self.stop.is_set() and time.monotonic() + seconds <= self.deadline

    def _note(self, progress: Progress) -> None:
        done = self.done + progress.done
        total = self.done + progress.total + self.steps
        self.on_progress(dataclasses.replace(progress, done=done, total=total))


def best_of(
    searches: Mapping[str, Search],
    judge: Judge,
    turns: Turns,
    *,
    knows: bool,
    resume_file: str | Path | None,
    otherwise: Callable[[], Search] | None = None,
) -> Fitted:
    """The better one of searches, which are run as far as the time goes, beside a Wiener filter.

    Args:
        searches: by where they begin, two at most.
        judge: says what they are worth.
        turns: what time there is.
        knows: whether the session that one begins with was fitted to this session's labels.
        resume_file: see ``Calibrator.fit``; further searches have files of their own beside it.
        otherwise: makes one that knows no unit, for where the filter is not clearly behind.
    """
    best, took_s, steps, files = None, 0.0, 1, list[ResumeFile]()
    waiting = dict(searches)
    while waiting:
        name, search = next(iter(waiting.items()))
        del waiting[name]
        # A start that has learned all labels that would judge it cannot be judged.
        if best is not None and (best.undecided or not turns.allow(took_s * search.steps / steps)):
            break
        steps = search.steps
        notes, kept = list[str](), None
        if resume_file is not None:
            path = Path(resume_file)
            path = path if best is None else path.with_name(f"{path.name}{_BESIDE[name]}")
            kept = ResumeFile(path, search, judge.adapter.artifact.manifest.core_hash)
            files.append(kept)
            if kept.load():
                notes.append(f"went on from step {search.moments[-1].point.step} of an earlier run")
        took_s = turns.run(search, judge, kept.save if kept is not None else lambda: None)
        if knows and name in (START, IN_USE):
            notes.append("the start was fitted to this session: R² counts what it had learned")
        if search.left_out:
            of = search.left_out + len(search.fits) - 1
            notes.append(f"time was short: judged on {len(search.fits) - 1} of {of} folds")
        if name == NOTHING_KNOWN and best is not None:
            notes.append(_by_accident(search.chosen.point.r2, best.quality.r2_heldout))
        found = judge.fitted(search, name, notes)
        best = found if best is None else better(judge.session_id, best, found)
        if not found.ended:
            files.clear()  # another run goes on from them
            break
        if not waiting and otherwise is not None:
            best = beside_wiener(best)
            if best.quality.wiener is not None and best.quality.wiener.use != "session":
                waiting = {NOTHING_KNOWN: otherwise()}
                turns.expect(waiting[NOTHING_KNOWN])
            otherwise = None
    for file in files:
        file.remove()
    assert best is not None
    return judge.mixed(beside_wiener(best))


def _by_accident(r2: float, before: float) -> str:
    return (
        f"electrodes of these names were trained, but a fit that takes all units for unknown "
        f"decodes held-out blocks at R² {r2:.3f}, one that begins with what was trained at "
        f"{before:.3f}: the names match by accident, or the array is no longer the one trained"
    )


def beside_wiener(found: Fitted) -> Fitted:
    """The same with a Wiener filter's figures in its quality, if it lacks them."""
    if found.beside is not None:
        return found
    beside = wiener_beside(found.search)
    quality = beside_filter(found.quality, found.search, beside)
    return dataclasses.replace(found, quality=quality, beside=beside)


def better(session_id: str, first: Fitted, second: Fitted) -> Fitted:
    """The one that the gate takes; of two that it takes or refuses, the more accurate one.

    Accurate is a small angular error for labels of intention, a high R² for behaviour, on the
    samples that the session in use is judged on.
    """
    if second.quality.steps == 0:
        return first  # the session in use itself, which nobody needs to be given again
    ranks = []
    for one in (first, second):
        passes = refusal(candidate(session_id, one.quality)) is None
        ranks.append((passes, _accuracy(one.quality)))
    return second if ranks[1] > ranks[0] else first


def _accuracy(quality: Quality) -> float:
    compared = quality.compared
    control, r2 = quality.control, quality.r2_heldout
    if compared is not None and compared.r2 is not None:
        control, r2 = compared.control, compared.r2
    if quality.labels and control is not None and control.angular_error_deg is not None:
        return -control.angular_error_deg
    return r2 if math.isfinite(r2) else -math.inf


def _interval(judged: Judged) -> tuple[tuple[float, float], ...]:
    low, high = judged.interval()
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def _weak_points(point: Point) -> list[str]:
    """What a user should know before trusting the figures."""
    found = []
    if point.step == 0:
        found.append("nothing was learned: this is the first guess; give it more time")
    still = [i for i, r2 in enumerate(point.r2_per_dim) if r2 <= 0]
    if still:
        found.append(f"dimension {still[0]} is decoded no better than by holding its mean")
    return found
