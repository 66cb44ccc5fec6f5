"""Options are taken by the names that they had before, and told by the ones they have now."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_commands import known_commands
from typer.testing import CliRunner

from poyo_edge.cli import app
from poyo_edge.cli.help import help_text, in_new_spelling

OLD = [
    ("replay", ["a.poyo", "r.h5", "--figures", "x"], "report", Path("x")),
    ("replay", ["a.poyo", "r.h5", "--figures=x"], "report", Path("x")),
    ("closed-loop", ["a.poyo", "-ox"], "report", Path("x")),
    ("closed-loop", ["a.poyo", "-o", "x"], "report", Path("x")),
    ("closed-loop", ["a.poyo", "--out", "x"], "report", Path("x")),
    ("closed-loop", ["a.poyo", "--observe-s", "20"], "seconds", 20.0),
    ("closed-loop", ["a.poyo", "--recalibrate-s", "15"], "recalibrate_after", 15.0),
    ("freeze", ["a.poyo", "-o", "x.onnx", "--force"], "overwrite", True),
    ("tune", ["a.poyo", "--session", "s", "--force"], "overwrite", True),
    ("bench", ["a.poyo", "--minutes", "2"], "minutes", 2.0),
    ("bench", ["a.poyo", "--png", "x.png"], "png", Path("x.png")),
]


@pytest.mark.parametrize(("name", "words", "parameter", "value"), OLD)
def test_an_old_name_means_what_the_new_one_means(
    name: str, words: list[str], parameter: str, value: object
) -> None:
    command = known_commands()[name]
    assert command.make_context(name, [*words]).params[parameter] == value


@pytest.mark.parametrize("name", sorted({row[0] for row in OLD}))
def test_help_does_not_show_old_names(name: str) -> None:
    command = known_commands()[name]
    said = help_text(command, command.context_class(command, info_name=name), 100)
    typed = [word.partition("=")[0] for row in OLD if row[0] == name for word in row[1]]
    shown = [word for word in typed if word.startswith("--") and f"  {word} " in said]
    assert set(shown) <= {"--session"}


def test_words_behind_two_dashes_and_values_stay_as_they_are() -> None:
    old = {"--figures": "--report", "-o": "--report"}
    assert in_new_spelling(["--figures", "a", "--", "--figures"], old) == [
        "--report", "a", "--", "--figures",
    ]  # fmt: skip
    assert in_new_spelling(["--other", "-", "x-o"], old) == ["--other", "-", "x-o"]


def offered(*words: str) -> list[str]:
    """What bash is offered for the last of the words."""
    environment = {
        "_POYO_EDGE_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["poyo-edge", *words]),
        "COMP_CWORD": str(len(words)),
    }
    return CliRunner().invoke(app, [], prog_name="poyo-edge", env=environment).stdout.split()


def test_a_shell_is_offered_commands_options_and_values() -> None:
    assert offered("rep") == ["replay"]
    assert "--report" in offered("replay", "--")
    assert offered("train", "poyo-") == ["poyo-1", "poyo-mp"]
    assert offered("build", "a.poyo", "--target", "jetson-") == ["jetson-orin", "jetson-thor"]
    assert offered("bench", "a.poyo", "--backend", "ort-c") == ["ort-cuda", "ort-cpu"]
