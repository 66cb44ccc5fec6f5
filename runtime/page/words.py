"""What statuses and flags mean, in a sentence that somebody beside the rig understands."""

from __future__ import annotations

STATUS_WORDS = {
    "VALID": "decoded from a whole window",
    "WARMUP": "decoded, but not yet heard for long enough",
    "DEGRADED": "decoded, with a reservation",
    "HELD": "the last good value, or zero by a command",
    "INVALID": "nobody should act on it: fading to zero",
}

FLAG_WORDS = {
    "warmup": "the stream has not been heard for a whole window",
    "clock_reset": "the device's clock jumped or began anew",
    "verifying": "listening whether this is the session of these units",
    "silent": "no spike in the window",
    "stream_lost": "the stream of spikes is lost",
    "gap": "a part of the window was not heard",
    "over_budget": "more spikes than the model takes; the newest were used",
    "overflow": "more spikes came than could be kept",
    "backend": "the model could not be computed; the last value is held",
    "fallback": "computed on the CPU: the engine could not",
    "drift": "many units fire otherwise than at calibration",
    "coverage": "many spikes are of units that the session does not know",
    "output_range": "values beyond the range of calibration",
    "wrong_session": "the session is not that of these units",
    "slow": "decoding takes longer than its period",
    "stale_rows": "spikes came with rows of another session",
    "delayed": "many spikes arrive after their window",
    "unverified": "decoded as ever; a wrong session would not be noticed",
    "clock_rate": "the device's counter does not run at its stated rate",
    "loss": "packets of the feed were lost",
    "skipped": "windows were skipped: the loop came too late",
    "flood": "more packets than the loop can take",
    "zeroed": "zero by a command, until resume",
    "paused": "paused by a command, until resume",
    "stopped": "stopped by a command",
    "control": "the cursor goes where it is wanted less than before",
    "other": "a flag that this page does not know",
}


def ms_text(ms: float | None) -> str:
    """Milliseconds with the figures that matter; "–" for none."""
    if ms is None or ms != ms:
        return "–"
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def age_text(seconds: float | None) -> str:
    """A span in the unit that a person would say."""
    if seconds is None or seconds != seconds:
        return "–"
    if seconds < 1:
        return f"{max(0.0, seconds) * 1e3:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} days"


def bytes_text(n: float) -> str:
    """Bytes as kB, MB or GB of a thousand each."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} B"
