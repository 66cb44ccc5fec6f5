"""What stands between decoder and cursor: settings, as values and as a file ``control.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from poyo_edge.errors import UsageError
from poyo_edge.files.writing import write_bytes
from poyo_edge.records import JsonRecord, require_fields

_MOST_BYTES = 1 << 16
_NUMBERS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "gain": (lambda x: 0 <= x <= 100, "0 to 100"),
    "smoothing_ms": (lambda x: 0 <= x <= 2000, "0 to 2000 ms"),
    "deadband": (lambda x: 0 <= x <= 1e12, "a speed >= 0"),
    "speed_cap": (lambda x: 0 < x <= 1e12, "a speed > 0"),
    "speed_exponent": (lambda x: 0.2 <= x <= 5, "0.2 to 5"),
    "speed_reference": (lambda x: 0 < x <= 1e12, "a speed > 0"),
    "slow_start_s": (lambda x: 0 <= x <= 60, "0 to 60 s"),
    "bias_n": (lambda x: 1 <= x <= 1000, "1 to 1000"),
    "assist": (lambda x: 0 <= x <= 1, "a share, 0 to 1"),
    "assist_speed": (lambda x: 0 < x <= 1e12, "a speed > 0"),
    "assist_fade_trials": (lambda x: 1 <= x <= 100_000, "1 to 100000 trials"),
    "assist_fade_minutes": (lambda x: 0 < x <= 1440, "minutes > 0 and <= 1440"),
    "attenuation": (lambda x: 0 <= x <= 1, "a share, 0 to 1"),
    "dwell_s": (lambda x: 0 < x <= 60, "seconds > 0 and <= 60"),
    "dwell_radius": (lambda x: 0 < x <= 1e12, "a radius > 0"),
}
"""Field → whether a number may be meant, and what may be."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings(JsonRecord):
    """How a decoded velocity becomes the one that a cursor is moved with. All of it is off.

    Speeds are in the decoder's unit, which is to be that of the cursor's position per second.
    """

    gain: float = 1.0
    """The velocity is multiplied by it."""
    smoothing_ms: float = 0.0
    """First-order smoothing, named by the latency that it adds: its group delay for slow
    movements, whatever the rate of values. A step is at 63 % after about as long."""
    deadband: float = 0.0
    """This much is taken off the speed; slower values are zero."""
    speed_cap: float | None = None
    """No value that leaves is faster."""
    speed_exponent: float = 1.0
    """``speed -> reference * (speed / reference) ** exponent`` (the non-linear speed scaling of
    Willett et al. 2019): above 1 slow movements become slower and fast ones faster."""
    speed_reference: float | None = None
    """The speed that the exponent leaves as it is."""
    slow_start_s: float = 0.0
    """Values are zero while the decoder warms up, and come back over so long after that, after a
    value that was not decoded (HELD, INVALID), after a swap, and after ``resume``."""
    bias: Literal["off", "trials", "rest"] = "off"
    """What the bias is learned from: the mean velocity of whole trials, whose targets must balance
    each other, or that of the rest between trials. Without trials nothing is learned."""
    bias_n: int = 8
    """Trials, or rests, that it is the mean of; nothing is removed before there are so many."""
    assist: float = 0.0
    """Share of the automatic command, which moves the cursor straight to the target while a trial
    runs; the other share is the person's."""
    assist_speed: float | None = None
    """Speed of the automatic command, which slows down when it arrives."""
    assist_fade_trials: int | None = None
    """The share falls to zero over so many whole trials."""
    assist_fade_minutes: float | None = None
    """The share falls to zero over so many minutes from the first trial on."""
    attenuation: float = 0.0
    """Share that is taken away of the part of the velocity off the line to the target."""
    dwell_s: float | None = None
    """Click when the cursor has been within the target for so long."""
    dwell_radius: float | None = None
    """Of targets whose trial names none."""

    def __post_init__(self) -> None:
        require_fields(self)
        for name, (fits, expected) in _NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise UsageError(f"{name}: expected {expected}, got {value!r}")
        if self.speed_exponent != 1 and self.speed_reference is None:
            raise UsageError(
                f"speed_exponent: expected speed_reference with it, got {self.speed_exponent:g} "
                f"alone; name the speed that it leaves as it is"
            )
        if self.assist and self.assist_speed is None:
            raise UsageError(
                f"assist: expected assist_speed with it, got {self.assist:g} alone; name the speed "
                f"of the automatic command"
            )
        if self.assist_fade_trials is not None and self.assist_fade_minutes is not None:
            raise UsageError(
                "assist_fade_trials, assist_fade_minutes: expected one of them, got both"
            )

    @property
    def active(self) -> bool:
        """Whether anything is on; without it values are the decoder's own, bit for bit."""
        return self.shapes or self.guides or self.bias != "off" or self.dwell_s is not None

    @property
    def shapes(self) -> bool:
        """Whether a velocity is changed by itself, without trials."""
        plain = (self.gain, self.smoothing_ms, self.deadband, self.speed_cap, self.speed_exponent)
        return plain != (1.0, 0.0, 0.0, None, 1.0) or self.slow_start_s > 0

    @property
    def guides(self) -> bool:
        """Whether a velocity is changed by where the target is."""
        return self.assist > 0 or self.attenuation > 0

    def smoothing_share(self, period_s: float) -> float:
        """How much of the value before stays in the next: Willett's alpha, at such a period."""
        lag = self.smoothing_ms / 1e3
        return lag / (lag + period_s)

    def save(self, path: str | Path) -> None:
        """Write them as JSON; a file that is there is replaced as a whole."""
        write_bytes(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> ControlSettings:
        """Read what ``save`` or a person wrote; fields that are left out are off.

        Raises:
            UsageError: no such file, no JSON object, an unknown field, or a value that cannot be.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise UsageError(
                f"{path}: expected a file of control settings, got none that can be read "
                f"({error.strerror}); check the path"
            ) from None
        if len(data) > _MOST_BYTES:
            raise UsageError(
                f"{path}: expected control settings, got more than {_MOST_BYTES} bytes"
            )
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f'{path}: expected JSON like {{"gain": 1.2}}, got another kind ({error})'
            ) from None
        try:
            return cls.from_json(values)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
