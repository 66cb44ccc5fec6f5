"""What is recorded, how fast it grows, and for how long the disk lasts."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poyo_edge.runtime.page.words import age_text, bytes_text

_OVER_S = 60.0
_LEAST_S = 5.0
_SHORT_S = 3600.0
"""A disk that lasts for less is a warning."""


class Recorded:
    """Follows the journal of a run."""

    def __init__(self) -> None:
        self._sizes = deque[tuple[float, int]](maxlen=600)

    def look(self, state: Mapping[str, Any], now_s: float) -> dict[str, Any]:
        """What to show, as JSON values: ``text``, ``lines`` of (name, value), ``tone``.

        Args:
            state: of the ring.
            now_s: seconds of the host's clock.
        """
        journal = state.get("journal")
        if not journal:
            return {
                "text": "Nothing is recorded", "tone": "warn",
                "lines": [["to record", "start the run with --record NAME.journal"]],
            }  # fmt: skip
        path, size = Path(journal["path"]), int(journal["bytes"])
        rate = self._rate(now_s, size)
        lines = [["journal", path.name], ["folder", str(path.parent)]]
        lines.append(["written", bytes_text(size)])
        if rate is not None:
            lines.append(["grows by", f"{bytes_text(60 * rate)} a minute"])
        tone = "good"
        try:
            free = shutil.disk_usage(path.parent).free
        except OSError as error:
            lines.append(["disk", f"cannot be asked ({error.strerror})"])
        else:
            lines.append(["disk left", bytes_text(free)])
            if rate:
                lines.append(["full in", age_text(free / rate)])
                tone = "warn" if free / rate < _SHORT_S else tone
        text = f"Recording {path.name}"
        if journal["error"]:
            text, tone = f"Recording failed: {journal['error']}", "bad"
            lines.append(["lost", f"{journal['lost_frames']} frames"])
        return {"text": text, "tone": tone, "lines": lines}

    def _rate(self, now_s: float, size: int) -> float | None:
        """Bytes per second lately; None before a few seconds are known."""
        if self._sizes and size < self._sizes[-1][1]:  # another run's
            self._sizes.clear()
        if not self._sizes or now_s - self._sizes[-1][0] >= 0.5:
            self._sizes.append((now_s, size))
        while now_s - self._sizes[0][0] > _OVER_S:
            self._sizes.popleft()
        span = now_s - self._sizes[0][0]
        return None if span < _LEAST_S else (size - self._sizes[0][1]) / span
