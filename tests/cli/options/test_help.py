"""``--help`` on one screen, in groups, in the order of work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from known_commands import known_commands
from typer.testing import CliRunner

from poyo_edge.cli import app
from poyo_edge.cli.help import help_text

LINES, COLUMNS = 50, 100


def screen(name: str, width: int = COLUMNS) -> list[str]:
    command = known_commands()[name]
    context: Any = command.context_class(command, info_name=f"poyo-edge {name}")
    return help_text(command, context, width).splitlines()


@pytest.mark.parametrize("name", sorted(known_commands()))
def test_the_help_of_a_command_is_one_screen(name: str) -> None:
    lines = screen(name)
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    begin = max(place for place, line in enumerate(lines) if line.startswith("Example: poyo-edge"))
    typed = " ".join(line.removesuffix("\\") for line in lines[begin:])
    assert typed.split() == known_commands()[name].epilog.split()
    assert all(line.endswith(" \\") for line in lines[begin:-1])


def test_groups_of_commands_are_in_the_order_of_work() -> None:
    said = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).stdout
    groups = ["Start here", "Recordings", "Train", "Export", "On the device", "At the rig", "Look"]
    places = [said.index(f"\n{group}\n") for group in groups]
    assert places == sorted(places)
    assert said.count("\n") <= LINES


def test_values_are_named_by_what_they_are_and_defaults_are_said_once() -> None:
    text = "\n".join(screen("run"))
    assert "--rate X" in text
    assert "--cpu N" in text
    assert "--units PATH" in text
    assert "[1 to 1000, default 50]" in text
    assert text.startswith("Usage: poyo-edge run ARTIFACT --from TEXT [OPTIONS]")
    assert "default default" not in text


def test_short_lines_stand_in_two_columns_and_long_ones_are_broken_into_lines() -> None:
    wide, narrow = screen("tell", 120), screen("tell", 60)
    assert any(line.count("--") == 2 for line in wide)
    assert len(narrow) > len(wide)


def test_hidden_options_are_not_shown() -> None:
    option = SimpleNamespace(
        hidden=True, param_type_name="option", opts=["--old"], secondary_opts=[], required=False
    )
    command: Any = SimpleNamespace(get_params=lambda _: [option], help="Does.", epilog="")
    assert "--old" not in help_text(command, SimpleNamespace(command_path="x"), 80)
