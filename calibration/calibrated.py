"""A session that was fitted: what it is good for, and the refusal of one that is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from poyo_edge.artifact import Session
from poyo_edge.calibration.control import Control
from poyo_edge.calibration.fit.judging import Point
from poyo_edge.calibration.gate import Compared
from poyo_edge.calibration.intention import IntentionReport
from poyo_edge.calibration.refusing import Candidate, refusal
from poyo_edge.errors import CheckFailedError
from poyo_edge.files.writing import keep_previous
from poyo_edge.runtime.decoder import Decoder


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
    """Where the fit that was taken began: "first guess", "start" or "session in use"."""

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
