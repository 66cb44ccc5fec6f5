"""The example of each command runs as it is printed, beside what ``poyo-edge demo`` leaves."""

from __future__ import annotations

import shlex

import pytest
from known_commands import known_commands

DEMO = {
    "demo", "demo/demo.poyo", "demo/demo.ckpt", "demo/recordings", "demo/recordings/sim_04.h5",
    "demo/sim_04.session",
}  # fmt: skip
"""What the demo leaves."""
KEY, TOKEN = "lab.key", "run.token"
"""Written by the example of keygen; by a run with ``--control``, to which one tells something."""


@pytest.mark.parametrize("name", sorted(known_commands()))
def test_an_example_needs_nothing_but_what_the_demo_leaves(name: str) -> None:
    command = known_commands()[name]
    program, called, *words = shlex.split(command.epilog.removeprefix("Example: "))
    assert (program, called) == ("poyo-edge", name)
    given = command.make_context(name, [*words]).params
    written = {str(given.get(key)) for key in ("out", "report", "folder")} | {KEY, TOKEN}
    files = {word.removeprefix("file:") for word in words if "/" in word or "." in word}
    files -= {word for word in words if word.startswith(("udp:", "shm:"))}
    numbers = {word for word in files if word.replace(".", "").replace(",", "").isdigit()}
    assert files - numbers - written - {"cursor.vel"} <= DEMO
