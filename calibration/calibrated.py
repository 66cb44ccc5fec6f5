"""A session that was fitted: what it is good for, and the refusal of one that is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from poyo_edge.artifact import Session
from poyo_edge.calibration.control import Control, control_of
from poyo_edge.calibration.fit.beside import WienerBeside
from poyo_edge.calibration.fit.judging import Point
from poyo_edge.calibration.fit.search import Search
from poyo_edge.calibration.gate import Compared
from poyo_edge.calibration.intention import IntentionReport
from poyo_edge.calibration.refusing import MORE_ANGLE_DEG, Candidate, refusal
from poyo_edge.errors import CheckFailedError
from poyo_edge.files.writing import keep_previous
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.decoder import Decoder

Use = Literal["session", "wiener", "either"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WienerQuality(JsonRecord):
    """A Wiener filter that was fitted to the same labels (``fit.beside``), on the same samples."""

    r2_heldout: float
    r2_per_dim: tuple[float, ...]
    angular_error_deg: float | None
    """See ``Control``."""
    wall_s: float
    use: Use
    """What decodes these labels better: the session, the filter, or either, where chance may have
    made the difference."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well a fitted session decodes what it was not fitted on."""

    r2_heldout: float
    """Mean over dimensions of R² over all held-out blocks, causal."""
    r2_per_dim: tuple[float, ...]
    r2_interval: tuple[tuple[float, float], ...]
    """95 % interval of each dimension, from blocks drawn with replacement."""
    n_judged: int
    """Held-out samples behind these figures."""
    r2_in_use: float | None
    """R² of the session in use on the same samples; None when there is none."""
    labelled_s: float
    steps: int
    wall_s: float
    stopped: str
    """Why the fit ended: "past the best", "all steps", "time" or "interrupted"."""
    curve: tuple[Point, ...]
    silent_units: tuple[str, ...]
    """Units without a spike in the labelled data."""
    notes: tuple[str, ...]
    compared: Compared | None = None
    """Beside the session in use; None when there was none."""
    control: Control | None = None
    """What it is like to control with, on the same samples as ``r2_heldout``."""
    label_speed: float = 0.0
    """That a tenth of the held-out labels reach, behaviour units."""
    labels: tuple[IntentionReport, ...] = ()
    """How labels of intention were made; none for measured behaviour."""
    started: str = "first guess"
    """Where the fit that was taken began: "first guess", "start", "session in use" or
    "no unit known"."""
    encoder: bool = False
    """Whether the encoder's weights were fitted too (``fit.schedule``), and taken."""
    wiener: WienerQuality | None = None
    """A Wiener filter on the same labels; None before it was asked for (``beside_filter``)."""
    wiener_share: float = 0.0
    """Of that filter in each value, where it is mixed in (``fit.beside``); 0 where it is not."""
    r2_unmixed: float | None = None
    """``r2_heldout`` of the model alone, where a filter is mixed in."""

    @property
    def behind_wiener(self) -> bool:
        """Whether the filter decodes these labels clearly better."""
        return self.wiener is not None and self.wiener.use == "wiener"

    @property
    def lasting_notes(self) -> tuple[str, ...]:
        """What is written into the session file, for whoever decodes with it later."""
        if self.wiener is None or not self.behind_wiener:
            return ()
        figures = f"R² {self.r2_heldout:.3f} against {self.wiener.r2_heldout:.3f}"
        angle = None if self.control is None else self.control.angular_error_deg
        if self.labels and angle is not None and self.wiener.angular_error_deg is not None:
            figures = f"an angular error of {angle:.1f}° against "
            figures += f"{self.wiener.angular_error_deg:.1f}°"
        return (
            f"behind a Wiener filter on the same {self.labelled_s:.0f} s of labels: {figures} on "
            f"held-out blocks",
        )

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **values,
            "r2_heldout": round(self.r2_heldout, 6),
            "r2_per_dim": [round(r2, 6) for r2 in self.r2_per_dim],
            "r2_interval": [[round(x, 4) for x in pair] for pair in self.r2_interval],
            "r2_in_use": None if self.r2_in_use is None else round(self.r2_in_use, 6),
            "labelled_s": round(self.labelled_s, 3),
            "wall_s": round(self.wall_s, 2),
            "curve": [point.to_json() for point in self.curve],
            "silent_units": list(self.silent_units),
            "notes": list(self.notes),
            "compared": None if self.compared is None else self.compared.to_json(),
            "control": None if self.control is None else self.control.to_json(),
            "label_speed": round(self.label_speed, 4),
            "labels": [one.to_json() for one in self.labels],
            "wiener": None if self.wiener is None else self.wiener.to_json(),
            "r2_unmixed": None if self.r2_unmixed is None else round(self.r2_unmixed, 6),
            "behind_wiener": self.behind_wiener,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibratedSession(Session):
    """A ``Session`` with its quality. A bad one is refused where it would be used."""

    quality: Quality
    learned_until: float | None = None
    """Time of the last label that it was fitted to, on the calibrator's clock."""

    def require_good(self) -> None:
        """Refuse a session that does not pass the gate (``calibration.refusing``).

        Raises:
            CheckFailedError: with the figures.
        """
        reason = refusal(candidate(self.header.session_id, self.quality))
        if reason is not None:
            raise CheckFailedError(reason)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the session file; a crash leaves the old file or the whole new one.

        An older file of that name stays beside it as ``NAME.session.previous``.

        Raises:
            CheckFailedError: the session is bad (``require_good``), unless ``force``.
            UsageError: the folder does not exist.
        """
        if not force:
            self.require_good()
        keep_previous(path)
        Session.save(self, path)

    def swap_into(self, decoder: Decoder, *, force: bool = False) -> None:
        """Decode with this session from the next window on; ``decoder.revert`` goes back.

        Raises:
            CheckFailedError: the session is bad (``require_good``), unless ``force``.
            UsageError: the session does not fit the decoder's core.
        """
        if not force:
            self.require_good()
        decoder.swap_session(self)


def beside_filter(quality: Quality, search: Search, found: WienerBeside) -> Quality:
    """The quality of a search with a Wiener filter beside it, and a note where that is better.

    Measured behaviour is judged by R², beyond chance; labels of intention by the angular error, as
    the gate judges them.
    """
    ours = search.chosen.judged
    before = quality.lasting_notes  # of what the search had chosen then
    quality = dataclasses.replace(
        quality, notes=tuple(note for note in quality.notes if note not in before)
    )
    other = control_of(found.judged.truth, found.judged.decoded, None).angular_error_deg
    mine = None if quality.control is None else quality.control.angular_error_deg
    use: Use = "either"
    if quality.labels and mine is not None and other is not None:
        if abs(mine - other) > MORE_ANGLE_DEG:
            use = "session" if mine < other else "wiener"
    elif ours.clearly_worse(found.judged):
        use = "wiener"
    elif found.judged.clearly_worse(ours):
        use = "session"
    r2 = found.judged.r2()
    wiener = WienerQuality(
        r2_heldout=round(float(r2.mean()), 6),
        r2_per_dim=tuple(round(one, 6) for one in r2.tolist()),
        angular_error_deg=other,
        wall_s=round(found.wall_s, 2),
        use=use,
    )
    beside = dataclasses.replace(quality, wiener=wiener)
    return dataclasses.replace(beside, notes=(*beside.notes, *beside.lasting_notes))


def candidate(session_id: str, quality: Quality) -> Candidate:
    """What the gate looks at."""
    return Candidate(
        session_id=session_id,
        r2_heldout=quality.r2_heldout,
        r2_per_dim=quality.r2_per_dim,
        labelled_s=quality.labelled_s,
        control=quality.control,
        label_speed=quality.label_speed,
        of_intention=bool(quality.labels),
        compared=quality.compared,
    )
