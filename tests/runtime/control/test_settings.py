"""Settings between decoder and cursor: what can be meant, and the file ``control.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poyo_edge.errors import UsageError
from poyo_edge.runtime.control import ControlSettings

ALL = ControlSettings(
    gain=1.2, smoothing_ms=60.0, deadband=0.5, speed_cap=40.0, speed_exponent=1.3,
    speed_reference=20.0, slow_start_s=0.5, bias="trials", bias_n=8, assist=0.3, assist_speed=15.0,
    assist_fade_trials=40, attenuation=0.2, dwell_s=0.3, dwell_radius=1.2,
)  # fmt: skip


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    ALL.save(tmp_path / "control.json")
    assert ControlSettings.load(tmp_path / "control.json") == ALL
    (tmp_path / "some.json").write_text('{"gain": 2}')
    assert ControlSettings.load(tmp_path / "some.json") == ControlSettings(gain=2)


@pytest.mark.parametrize("name", ["gain", "smoothing_ms", "deadband", "speed_cap", "slow_start_s",
                                  "bias", "assist", "attenuation", "dwell_s"])  # fmt: skip
def test_each_part_is_off_by_default_and_on_by_itself(name: str) -> None:
    assert not ControlSettings().active
    also = {"assist": {"assist_speed": 10.0}}.get(name, {})
    assert ControlSettings(**{name: getattr(ALL, name), **also}).active


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gain": -1.0}, "gain: expected 0 to 100, got -1.0"),
        ({"gain": float("nan")}, "gain: expected finite float, got nan"),
        ({"gain": True}, "gain: expected finite float, got True"),
        ({"smoothing_ms": 1e4}, "smoothing_ms: expected 0 to 2000 ms"),
        ({"speed_cap": 0.0}, "speed_cap: expected a speed > 0"),
        ({"speed_exponent": 1.5}, "expected speed_reference with it, got 1.5 alone"),
        ({"assist": 0.5}, "expected assist_speed with it, got 0.5 alone"),
        ({"assist": 1.5, "assist_speed": 3.0}, "assist: expected a share, 0 to 1, got 1.5"),
        ({"assist_fade_trials": 9, "assist_fade_minutes": 1.0}, "expected one of them, got both"),
        ({"bias": "always"}, r"bias: expected one of \['off', 'trials', 'rest'\]"),
        ({"bias_n": 0}, "bias_n: expected 1 to 1000"),
        ({"dwell_s": 0.0}, "dwell_s: expected seconds > 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_one_sentence(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ControlSettings(**values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "none that can be read"),
        (b"{", "expected JSON like"),
        (b"[" * 60_000, "expected JSON like"),
        (b"[]", "expected a mapping, got list"),
        (b'{"gian": 2}', r"unknown keys \['gian'\]"),
        (b'{"gain": "2"}', "control.json: gain: expected finite float, got '2'"),
        (b'{"gain": NaN}', "gain: expected finite float"),
        (b" " * 70_000, "got more than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "control.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        ControlSettings.load(path)
    assert str(path) in str(caught.value)
