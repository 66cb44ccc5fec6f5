"""A rig file says what options say, is checked like them, and is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import run
from known_commands import known_commands
from typer.testing import CliRunner

from poyo_edge.cli import app
from poyo_edge.cli.rig_file import words_of
from poyo_edge.errors import FileProblemError, UsageError

RIG = """
artifact = "model.poyo"
from = "udp://127.0.0.1:5000"
to = ["shm:decoded", "udp://127.0.0.1:6000"]
rate = 100
settle_ms = 2.5
gc-off = true
lock-memory = false
cpu = [1, 2]
"""


def rig(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rig.toml"
    path.write_text(text)
    return path


def printed(*words: str) -> str:
    done = CliRunner().invoke(app, ["run", *words, "--print-config"])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_rig_file_is_the_words_that_it_stands_for(tmp_path: Path) -> None:
    assert words_of(rig(tmp_path, RIG), known_commands()["run"]) == [
        "model.poyo", "--from", "udp://127.0.0.1:5000", "--to", "shm:decoded",
        "--to", "udp://127.0.0.1:6000", "--rate", "100", "--settle-ms", "2.5", "--gc-off",
        "--cpu", "1", "--cpu", "2",
    ]  # fmt: skip


def test_what_is_printed_is_a_rig_file_that_says_the_same(tmp_path: Path) -> None:
    first = printed(str(rig(tmp_path, RIG)))
    assert 'from = "udp://127.0.0.1:5000"' in first
    assert "# session = TEXT" in first
    assert "json" not in first
    assert printed(str(rig(tmp_path, first))) == first


def test_options_behind_a_rig_file_win(tmp_path: Path) -> None:
    said = printed(str(rig(tmp_path, RIG)), "--rate", "20", "--to", "lsl://x")
    assert "rate = 20.0" in said
    assert 'to = ["shm:decoded", "udp://127.0.0.1:6000", "lsl://x"]' in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('form = "udp://x:1"', "form: expected artifact or the name of an option .* mean 'from'"),
        ("rate = [1, 2]", "rate: expected one text or number"),
        ("gc-off = 1", "gc-off: expected true or false"),
        ("json = true", "json: expected artifact or the name"),
        ("[stream]\nrate = 1", "stream: expected artifact"),
        ("from = {a = 1}", "from: expected texts or numbers"),
    ],
)
def test_a_wrong_line_is_an_error_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        words_of(rig(tmp_path, text), known_commands()["run"])


def test_a_file_that_is_no_toml_is_an_error_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileProblemError, match="expected TOML"):
        words_of(rig(tmp_path, "from udp"), known_commands()["run"])


def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    for name in ("none.toml", "folder.toml"):
        with pytest.raises(FileProblemError, match=r"a rig file that can be read.*check the path"):
            words_of(tmp_path / name, known_commands()["run"])


@pytest.mark.slow
@pytest.mark.parametrize(("text", "code"), [("form = 1", 2), ("from udp", 5), (None, 5)])
def test_a_wrong_file_is_one_line_and_its_exit_code(
    text: str | None, code: int, tmp_path: Path
) -> None:
    path = tmp_path / "rig.toml"
    if text is not None:
        path.write_text(text)
    done = run("run", path)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_value_out_of_range_is_refused_as_on_the_command_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", str(rig(tmp_path, RIG.replace("100", "5000")))])
    assert done.exit_code == 2
