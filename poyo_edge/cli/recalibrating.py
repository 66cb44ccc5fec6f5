"""``poyo-edge run --recalibrate``: recalibration in free use beside the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from poyo_edge.cli.text import behind_text
from poyo_edge.errors import UsageError

FITS = "New sessions while it runs"
"""The group of these options."""
CalibrateAfter = Annotated[
    float | None,
    typer.Option(
        min=5, rich_help_panel=FITS, help="Fit beside decoding after so many labelled seconds."
    ),
]
RecalibrateHow = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=FITS,
        help="Infer targets in free use and fit to them beside: offer or take.",
    ),
]
RecalibrateAfter = Annotated[
    float,
    typer.Option(min=30, max=3600, rich_help_panel=FITS, help="Seconds of use between such fits."),
]
SaveSession = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=FITS, help="Where the newest session that was swapped in is saved."
    ),
]


class Recalibration:
    """Recalibration by inferred targets, or nothing; the rig is opened before it.

    Args:
        mode: "offer", "take", or None for nothing.
        after_s: seconds of use between fits.

    Raises:
        UsageError: another mode, or seconds that are too few or too many.
    """

    def __init__(self, mode: str | None, after_s: float) -> None:
        self._free: Any = None
        self._settings: Any = None
        if mode is not None:
            from poyo_edge.calibration.free_use.recalibrating import FreeUseSettings, Mode

            most_s = max(after_s, 600.0)
            self._settings = FreeUseSettings(
                mode=cast("Mode", mode), after_s=after_s, most_s=most_s
            )

    @property
    def free_use(self) -> Any:
        """The ``FreeUseCalibration`` once the rig is open, for who takes or rejects; else None."""
        return self._free

    def callbacks(self) -> dict[str, Any]:
        """What ``Rig.open`` is to call."""
        if self._settings is None:
            return {}
        return {
            "on_spikes": lambda ticks, rows: self._free.on_spikes(ticks, rows),
            "on_cursor": lambda ticks, positions: self._free.on_cursor(ticks, positions),
            "on_value": lambda value: self._free.on_value(value),
        }

    def open(self, artifact: Path, rig: Any, save_to: Path | None) -> None:
        """Begin beside a rig that is open and not started."""
        if self._settings is None:
            return
        from poyo_edge.calibration.free_use.recalibrating import FreeUseCalibration

        journal = rig.loop.journal
        self._free = FreeUseCalibration(
            artifact,
            rig.decoder,
            settings=self._settings,
            save_to=save_to,
            epoch=lambda: rig.loop.clock.epoch,
            on_event=lambda entry: journal and journal.event(recalibration=entry),
        )
        rig.loop.control.commands.offering = self._free

    def stop(self) -> None:
        """End a fit that runs, and wait for it."""
        if self._free is not None:
            self._free.stop()

    def value(self) -> dict[str, Any] | None:
        """``FreeUseCalibration.to_json``; None for nothing."""
        return None if self._free is None else self._free.to_json()

    def to_json(self) -> dict[str, Any]:
        """The same under the key "recalibration"."""
        return {"recalibration": self.value()}


def require_alone(calibrate: float | None, recalibrate: str | None) -> None:
    """Labels and inferred targets would each swap sessions under the other.

    Raises:
        UsageError: both were asked for.
    """
    if calibrate is not None and recalibrate is not None:
        raise UsageError("--recalibrate: expected it without --calibrate, got both; choose one")


def live_line(values: Mapping[str, Any]) -> str:
    """One line of the live panel."""
    text = f"free use {values['used_s']:.0f} s"
    if not values["cursor"]:
        text += ", no cursor came: nothing can be inferred"
    if values["fitting"]:
        text += ", fitting"
    if values["offered"]:
        text += f", on offer: {values['offered']}"
    if values["history"]:
        text += f", last {outcome(values['history'][-1])}"
    return text


def outcome(entry: Mapping[str, Any]) -> str:
    """What became of a fit or an offer, in words."""
    if "taken" in entry:
        return f"{entry['taken']} taken"
    if "rejected" in entry:
        return f"{entry['rejected']} rejected"
    if not entry["passed"]:
        return f"refused: {entry['reason']}"
    new, old = entry["new"], entry["in_use"]
    text = (
        f"{entry['session']} passed: angular error {new['angular_error_deg']:.1f}° "
        f"({old['angular_error_deg']:.1f}° in use), gain {new['gain']:.2f} ({old['gain']:.2f})"
    )
    behind = behind_text(entry)
    return f"{text}; {behind}" if behind else text


def text_lines(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Lines of the report at the end of a run."""
    if values is None:
        return {}
    lines = {"free use": live_line({**values, "history": ()}).removeprefix("free use ")}
    for i, entry in enumerate(values["history"], 1):
        lines[f"recalibration {i}"] = outcome(entry)
    return lines
