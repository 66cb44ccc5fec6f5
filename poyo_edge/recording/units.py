"""Units of behaviour: which can be turned into each other, and what to say where they differ.

A model decodes in the unit that it was trained in. Behaviour in another one is fitted and scored
badly, or refused for a wrong reason, so those who read a recording compare the two first.

Legend: S behaviour samples, D dimensions.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np

from poyo_edge.recording.rules import refuse
from poyo_edge.spec import OutputScale

LENGTH, ANGLE = "length", "angle"
PER_SECOND = " per second"
_BASES = {
    LENGTH: {"m": 1.0, "dm": 0.1, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "km": 1e3},
    ANGLE: {"rad": 1.0, "mrad": 1e-3, "deg": np.pi / 180},
}
_NAMES = {
    **dict.fromkeys(("meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("decimeter", "decimeters", "decimetre", "decimetres"), "dm"),
    **dict.fromkeys(("centimeter", "centimeters", "centimetre", "centimetres", "cms"), "cm"),
    **dict.fromkeys(("millimeter", "millimeters", "millimetre", "millimetres", "mms"), "mm"),
    **dict.fromkeys(("micrometer", "micrometers", "micron", "microns", "µm", "μm"), "um"),
    **dict.fromkeys(("radian", "radians", "rads"), "rad"),
    **dict.fromkeys(("degree", "degrees", "degs", "°"), "deg"),
}
_S = r"(?:s|sec|secs|second|seconds)"
_RATE = re.compile(rf"(.+?)\s*(?:/\s*{_S}|\bper\s+{_S}|[\s*.·]+{_S}\s*(?:\^|\*\*)?-1)")


def dimension(unit: str) -> str:
    """What a unit measures, like "length" or "length per second"; "" for one we do not know."""
    found = _parsed(unit)
    return found[0] if found else ""


def factor_between(unit: str, wanted: str) -> float | None:
    """By what values in ``unit`` are multiplied to be in ``wanted``; None where nobody knows."""
    one, other = _parsed(unit), _parsed(wanted)
    if one is None or other is None or one[0] != other[0]:
        return None
    return float(f"{one[1] / other[1]:.12g}")


def same_unit(unit: str, wanted: str) -> bool:
    """Whether two names mean one unit."""
    return unit.strip() == wanted.strip() or factor_between(unit, wanted) == 1.0


def scaled_unit(unit: str, factor: float) -> str:
    """The name of a unit of values that were multiplied; "" where it has none."""
    if factor == 1.0:
        return unit
    found = _parsed(unit)
    if found is None:
        return ""
    base = found[0].removesuffix(PER_SECOND)
    names = [f"{name}{'/s' * found[0].endswith(PER_SECOND)}" for name in _BASES[base]]
    return next((one for one in names if factor_between(unit, one) == factor), "")


def _parsed(unit: str) -> tuple[str, float] | None:
    """What a unit measures, and its size in metres or radians (per second)."""
    words = unit.strip().lower()
    rate = _RATE.fullmatch(words)
    name = (rate.group(1) if rate else words).strip()
    name = _NAMES.get(name, name)
    for kind, sizes in _BASES.items():
        if name in sizes:
            return kind + PER_SECOND * (rate is not None), sizes[name]
    return None


def require_unit(path: Path, behavior: str, unit: str, output: OutputScale) -> None:
    """Refuse behaviour in a unit that can be turned into the model's, with the command that does.

    Args:
        path: of the recording.
        behavior: its name, GROUP.KEY.
        unit: of the behaviour; "" where nobody knows.
        output: of the model.

    Raises:
        RecordingError: the two units are known, measure the same, and differ.
    """
    factor = factor_between(unit, output.unit)
    if factor is None or factor == 1.0:
        return
    do = _turn(path, behavior, output.unit, factor)
    refuse(path, behavior, f"values in {output.unit}, as the model decodes", unit, do)


def require_cursor_unit(path: Path, cursor: str, unit: str, output: OutputScale) -> None:
    """Refuse positions in another unit of length than the model's velocities, likewise.

    Labels of intention are made of a cursor and its targets, and have their unit.

    Args:
        path: of the recording.
        cursor: the positions, GROUP.KEY.
        unit: of the positions; "" where nobody knows.
        output: of the model.

    Raises:
        RecordingError: the two units are known, are of the same kind, and differ.
    """
    rate = _RATE.fullmatch(output.unit.strip().lower())
    wanted = rate.group(1).strip() if rate else output.unit
    factor = factor_between(unit, wanted)
    if factor is None or factor == 1.0:
        return
    do = _turn(path, cursor, wanted, factor)
    refuse(path, cursor, f"positions in {wanted}, as the model decodes {output.unit}", unit, do)


def _turn(path: Path, behavior: str, unit: str, factor: float) -> str:
    """The command that writes a recording again, with one behaviour in another unit."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", unit).strip("_")
    words = ["poyo-edge", "convert", str(path), "-o", f"{path.stem}.{plain}.h5"]
    words += ["--behavior-unit", f"{behavior}={unit}"]
    return (
        f"run: {shlex.join(words)} (times {factor:g}); where the source names a wrong unit and the "
        f"values are in {unit} already, add --behavior-scale {behavior}=1"
    )


def dimension_remarks(behavior: str, unit: str, output: OutputScale) -> list[str]:
    """What to say of behaviour that measures something else than the model decodes."""
    kind, wanted = dimension(unit), dimension(output.unit)
    if not kind or not wanted or kind == wanted:
        return []
    return [f"{behavior} is in {unit}, a {kind}; the model decodes {output.unit}, a {wanted}"]
