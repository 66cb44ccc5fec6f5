"""Inspecting: a path is what its contents say, and what is damaged or unknown is refused."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import pytest
from helpers.damage import flip_bit
from helpers.paths import ROOT

from poyo_edge import inspecting
from poyo_edge.artifact import CORE, MANIFEST
from poyo_edge.errors import FileProblemError, SessionError
from poyo_edge.inspecting import NEXT, inspect_path
from poyo_edge.simulation.recordings import Simulation, simulate_recording

SESSION = "sessions/tiny_a.session"


def test_an_artifact_is_described_with_the_units_of_each_session(tiny: Path) -> None:
    about = inspect_path(tiny)
    assert about["kind"] == "artifact"
    assert about["sessions"] == {"tiny_a": 12, "tiny_b": 10}


def test_a_session_file_is_described_by_its_header(tiny: Path) -> None:
    about = inspect_path(tiny / SESSION)
    assert (about["kind"], about["session_id"], len(about["unit_ids"])) == ("session", "tiny_a", 12)


def test_what_to_do_with_a_path_is_said_with_the_path(tiny: Path) -> None:
    about = inspect_path(tiny / SESSION)
    assert any(line.startswith("poyo-edge freeze") for line in about["next"])
    assert any(str(tiny / SESSION) in line for line in about["next"])
    assert inspect_path(tiny)["next"][0] == f"poyo-edge verify {tiny}"


def test_a_folder_of_recordings_is_told_from_one_of_anything_else(tmp_path: Path) -> None:
    for name in ("a b/day.h5", "day_2.h5"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"\x89HDF\r\n\x1a\n")
    about = inspect_path(tmp_path)
    assert (about["kind"], about["n_recordings"]) == ("folder of recordings", 2)
    assert about["recordings"] == ["a b/day.h5", "day_2.h5"]
    assert about["next"][0] == f"poyo-edge train small --data {tmp_path} --dry-run"
    (tmp_path / "empty folder").mkdir()
    with pytest.raises(FileProblemError):
        inspect_path(tmp_path / "empty folder")


def test_a_recording_says_whose_it_is(tmp_path: Path) -> None:
    simulation = Simulation(duration_s=2.0, n_units=2, subjects="each")
    path = simulate_recording(tmp_path / "day.h5", session_id="day", seed=3, simulation=simulation)
    assert inspect_path(path)["subject_id"] == "simulated_3"
    with h5py.File(path, "r+") as file:
        del file["subject"]
    assert inspect_path(path)["subject_id"] is None


@pytest.mark.parametrize("kind", NEXT)
def test_what_is_said_to_be_next_can_be_typed(kind: str) -> None:
    from stale import find_stale

    block = "\n".join(line for line in NEXT[kind] if line.startswith("poyo-edge"))
    assert find_stale(f"```bash\n{block}\n```".format(path="x.h5", named=""), ROOT) == []


def test_a_checkpoint_without_a_scale_leads_to_the_option_that_gives_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def next_of(**said: object) -> str:
        monkeypatch.setattr(inspecting, "_look", lambda _: {"kind": "checkpoint", **said})
        return str(inspect_path("my.ckpt")["next"][0])

    assert next_of(scaled=True, tasks=["a"]) == "poyo-edge export my.ckpt"
    assert next_of(scaled=False, tasks=["a", "b"]).startswith(
        "poyo-edge export my.ckpt --task TASK --output-scale SCALE  #"
    )


@pytest.mark.parametrize("place", [0, 40, -1], ids=["length", "header", "embedding"])
def test_a_damaged_session_is_refused(tiny_copy: Path, place: int) -> None:
    file = tiny_copy / SESSION
    flip_bit(file, place)
    with pytest.raises(SessionError, match="^" + re.escape(f"{file}: ")):
        inspect_path(file)


def test_a_path_with_nothing_there_is_refused(tmp_path: Path) -> None:
    message = f"{tmp_path / 'no'}: path: expected a file or folder, got nothing there; check"
    with pytest.raises(FileProblemError, match="^" + re.escape(message)):
        inspect_path(tmp_path / "no")


OTHERS = {
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "text": b"dear diary",
    "JSON": b'{"schema": "poyo-edge/artifact"}',
    "nothing": b"",
}


def refusal(path: Path) -> str:
    with pytest.raises(FileProblemError) as refused:
        inspect_path(path)
    assert refused.value.exit_code == 5
    return str(refused.value)


FOUR_KINDS = (
    "file: expected a checkpoint, a recording (HDF5), a .session file or an artifact folder, got "
    "a file of another kind; name one of these; for a file inside an artifact, name its folder"
)


@pytest.mark.parametrize("name", ["x", "x.pt", "x.h5"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_kind_is_refused_with_the_four_kinds(
    tmp_path: Path, kind: str, name: str
) -> None:
    file = tmp_path / name
    file.write_bytes(OTHERS[kind])
    assert refusal(file) == f"{file}: {FOUR_KINDS}"


@pytest.mark.parametrize("name", [MANIFEST, CORE])
def test_a_file_inside_an_artifact_is_refused_with_its_folder(tiny: Path, name: str) -> None:
    assert refusal(tiny / name) == f"{tiny / name}: {FOUR_KINDS}"
