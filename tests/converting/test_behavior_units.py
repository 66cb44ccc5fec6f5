"""``--behavior-unit`` and ``--behavior-scale``: the values, and the unit that stays with them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.lab_files import VELOCITY, npz_file, nwb_file, torch_brain_recording

from poyo_edge.converting import ConvertOptions, convert, describe
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.inspecting import inspect_path
from poyo_edge.recording import Recording, write_recording
from poyo_edge.recording.units import require_unit
from poyo_edge.spec import OutputScale
from poyo_edge.trials import Trials

VEL = "cursor.vel=cursor_vel"


def taken(path: Path, **options: object) -> tuple[Recording, list[str]]:
    out = path.with_suffix(".out.h5")
    chosen = ConvertOptions(overwrite=True, **{"behaviors": (VEL,), **options})  # type: ignore[arg-type]
    notes = convert(path, out, chosen)["notes"]
    return Recording.open(out), [note for note in notes if "splits" not in note]


@pytest.fixture
def nwb(tmp_path: Path) -> Path:
    """Velocity in metres per second, of numbers that are 100 times as large in the file."""
    path = nwb_file(tmp_path / "a.nwb", conversion=0.01)
    with h5py.File(path, "r+") as file:
        file["processing/behavior/cursor_vel/data"].attrs["unit"] = "m/s"
    return path


def test_the_recording_keeps_the_unit_of_the_source(nwb: Path) -> None:
    recording, notes = taken(nwb)
    assert recording.behavior_units == {"cursor.vel": "m/s"}
    np.testing.assert_allclose(recording.behavior("cursor.vel").values, VELOCITY * 0.01)
    assert inspect_path(recording.path)["behavior_units"] == {"cursor.vel": "m/s"}
    assert describe(recording.path)["series"][0]["unit"] == "m/s"
    assert notes == []


@pytest.mark.parametrize(
    "options",
    [
        {"behavior_units": ("cm/s",)},
        {"behavior_units": ("cursor.vel=cm/s",)},
        {"behavior_scales": ("100",)},
        {"behavior_scales": ("cursor.vel=100",), "behavior_units": ("cm/s",)},
    ],
)
def test_metres_become_centimetres(nwb: Path, options: dict[str, object]) -> None:
    recording, notes = taken(nwb, **options)
    assert recording.behavior_units == {"cursor.vel": "cm/s"}
    np.testing.assert_allclose(recording.behavior("cursor.vel").values, VELOCITY)
    assert notes == []


def test_a_wrong_unit_of_the_source_is_corrected_and_said(nwb: Path) -> None:
    recording, notes = taken(nwb, behavior_units=("cm/s",), behavior_scales=("1",))
    np.testing.assert_allclose(recording.behavior("cursor.vel").values, VELOCITY * 0.01)
    assert recording.behavior_units == {"cursor.vel": "cm/s"}
    assert notes == [
        "cursor.vel: the source says m/s; it was taken times 1 as cm/s, as was asked for"
    ]


def test_the_command_of_the_refusal_mends_the_recording_and_keeps_its_splits(nwb: Path) -> None:
    wrong, _ = taken(nwb)
    output = OutputScale(scale=(1.0,), unit="cm/s")
    with pytest.raises(RecordingError) as refused:
        require_unit(wrong.path, "cursor.vel", wrong.behavior_units["cursor.vel"], output)
    assert "--behavior-unit cursor.vel=cm/s (times 100)" in refused.value.do
    mended = wrong.path.with_suffix(".mended.h5")
    convert(wrong.path, mended, ConvertOptions(behavior_units=("cursor.vel=cm/s",)))
    recording = Recording.open(mended)
    np.testing.assert_allclose(recording.behavior("cursor.vel").values, VELOCITY)
    require_unit(mended, "cursor.vel", recording.behavior_units["cursor.vel"], output)
    assert recording.unit_ids == wrong.unit_ids
    assert {*recording.domains} == {"all", "train", "valid", "test"}
    for name, split in wrong.domains.items():
        np.testing.assert_allclose(recording.domains[name], split, rtol=1e-15)


def test_a_source_without_a_unit_gets_a_name(tmp_path: Path) -> None:
    path = npz_file(tmp_path / "a.npz")
    recording, notes = taken(path, behaviors=("cursor.vel",), behavior_units=("cm/s",))
    assert recording.behavior_units == {"cursor.vel": "cm/s"}
    np.testing.assert_array_equal(recording.behavior("cursor.vel").values, VELOCITY)
    assert notes == []


def test_a_unit_that_nobody_knows_is_named_with_a_note(nwb: Path) -> None:
    with h5py.File(nwb, "r+") as file:
        file["processing/behavior/cursor_vel/data"].attrs["unit"] = "AU"
    recording, notes = taken(nwb, behavior_scales=("10",))
    assert recording.behavior_units == {}
    assert notes == [
        "cursor.vel: AU times 10 has no name here; say it with --behavior-unit"
    ]  # fmt: skip
    recording, notes = taken(nwb, behavior_scales=("10",), behavior_units=("cm/s",))
    assert recording.behavior_units == {"cursor.vel": "cm/s"}
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"behavior_units": ("cm",)}, "a unit of length per second for cursor.vel, which is in"),
        ({"behavior_units": ("hand.vel=cm/s",)}, r"NAME=VALUE like cursor.vel=cm/s, with one of"),
        ({"behavior_scales": ("much",)}, "behavior-scale: expected a number other than 0"),
        ({"behavior_scales": ("0",)}, "behavior-scale: expected a number other than 0"),
        ({"behavior_scales": ("nan",)}, "behavior-scale: expected a number other than 0"),
        ({"behavior_scales": ("2", "cursor.vel=3")}, "one for each behaviour, got 'cursor.vel'"),
        ({"behavior_units": ("cm/s",), "behaviors": ()}, "NAME=VALUE like cursor.vel=cm/s"),
    ],
)
def test_what_nobody_can_mean_is_refused(
    nwb: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        taken(nwb, **options)
    assert not nwb.with_suffix(".out.h5").exists()


def test_a_torch_brain_file_may_name_units(tmp_path: Path) -> None:
    path = torch_brain_recording(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file["cursor/vel"].attrs["units"] = np.bytes_("mm/s")
        file["cursor/pos"].attrs["unit"] = 3
    units = {one["key"]: one["unit"] for one in describe(path)["series"]}
    assert units == {"cursor.vel": "mm/s", "cursor.pos": ""}
    assert Recording.open(path).behavior_units == {}


def task(path: Path) -> Path:
    """Trials with targets, of a cursor in metres."""
    times, starts = np.arange(0.0, 20.0, 0.02), np.arange(1.0, 19.0, 2.0)
    write_recording(
        path, session_id="s", subject_id="m", unit_ids=["s/a"], spike_times=times + 0.001,
        spike_units=np.zeros(len(times), int),
        behaviors={"cursor.pos": (times, VELOCITY), "cursor.vel": (times, VELOCITY),
                   "hand.pos": (times, VELOCITY)},
        behavior_units={"cursor.pos": "m", "cursor.vel": "m/s", "hand.pos": "m"},
        domains={"train": [(0.0, 10.0)], "test": [(10.0, 20.0)]},
        trials=Trials.of(starts, starts + 1, target=np.stack([0.1 * starts, -starts], axis=1),
                         radius=np.full(len(starts), 0.01)),
    )  # fmt: skip
    return path


def test_targets_move_with_the_cursor(tmp_path: Path) -> None:
    path = task(tmp_path / "s.h5")
    before = Recording.open(path).trials()
    units = ("cursor.pos=cm", "cursor.vel=cm/s")
    recording, notes = taken(path, behaviors=(), behavior_units=units)
    after = recording.trials()
    assert before is not None and after is not None
    np.testing.assert_allclose(after.target, before.target * 100)
    np.testing.assert_allclose(after.radius, before.radius * 100)
    assert notes == ["targets of trials were multiplied by 100, as cursor.pos was"]
    assert recording.behavior_units == {"cursor.pos": "cm", "cursor.vel": "cm/s", "hand.pos": "m"}


@pytest.mark.slow
def test_targets_stay_where_no_cursor_is_multiplied(tmp_path: Path) -> None:
    path = task(tmp_path / "s.h5")
    before = Recording.open(path).trials()
    for units in (("cursor.vel=cm/s",), ("hand.pos=cm",)):
        after = taken(path, behaviors=(), behavior_units=units)[0].trials()
        assert before is not None and after is not None
        np.testing.assert_array_equal(after.target, before.target)


def test_targets_of_nobody_knows_which_cursor_are_refused(tmp_path: Path) -> None:
    chosen = ("a.pos=cursor.pos", "hand.pos")
    with pytest.raises(UsageError, match=r"one factor for a\.pos, hand\.pos, as targets"):
        taken(task(tmp_path / "s.h5"), behaviors=chosen, behavior_units=("a.pos=cm",))
