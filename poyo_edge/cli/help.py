"""``--help`` of a command on one screen: usage, what it does, options in groups, an example.

Plain text, as wide as the terminal. A group of short lines stands in two columns.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from typer.core import TyperCommand

LAST = "Printing"
"""The group of options that all commands have; it stands last."""
REST = "Options"
_KINDS = {"int": "N", "integer": "N", "float": "X", "text": "TEXT", "str": "TEXT", "path": "PATH"}
_HEIGHT = 50
"""Lines of a screen."""
_ACROSS = 30
"""Names that are longer have their help below them."""


class ScreenCommand(TyperCommand):
    """A command that says all of it on one screen."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help into click's formatter, which prints it."""
        formatter.write(help_text(self, ctx, shutil.get_terminal_size((100, 50)).columns))


def help_text(command: Any, ctx: Any, width: int) -> str:
    """The help of a command.

    Args:
        command: as click has it.
        ctx: click's context, for the name that it was called by.
        width: columns of the screen.
    """
    shown = [p for p in command.get_params(ctx) if not getattr(p, "hidden", False)]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    options = [p for p in shown if p.param_type_name != "argument"]
    needed = [f" {p.opts[0]} {kind_of(p)}" for p in options if p.required]
    places = [f" {place_of(p)}" for p in arguments]
    lines = [f"Usage: {ctx.command_path}{''.join(places)}{''.join(needed)} [OPTIONS]", ""]
    lines += textwrap.wrap(" ".join((command.help or "").split()), width)
    entries = [(place_of(p), p.help or "") for p in arguments]
    if entries:
        lines += ["", *_rows(entries, width)]
    groups = dict[str, list[tuple[str, str]]]()
    for option in options:
        group = getattr(option, "rich_help_panel", None) or (
            LAST if option.name == "help" else REST
        )
        groups.setdefault(group, []).append((_names(option), _help(option)))
    for apart in ([""], []):  # a long one goes without empty lines between its groups
        told = [*lines, ""]
        for place, group in enumerate(sorted(groups, key=lambda name: name == LAST)):
            told += [*(apart if place else ()), group, *_rows(groups[group], width)]
        if len(told) + 2 <= _HEIGHT:
            break
    if command.epilog:
        told += ["", command.epilog]
    return "\n".join(told) + "\n"


def place_of(argument: Any) -> str:
    """How an argument is written in a call."""
    name = (argument.metavar or argument.name).strip("[]").upper()
    return name if argument.required else f"[{name}]"


def kind_of(option: Any) -> str:
    """What a value of an option is, in capitals; "" for a flag."""
    if option.is_flag:
        return ""
    if option.metavar:
        return str(option.metavar)
    descriptor = getattr(option, "type_descriptor", None)  # typer has its own since 0.29
    if descriptor is None:
        kind = option.type.name
    else:
        inner = get_args(descriptor.annotation) or (descriptor.annotation,)
        kind = getattr(inner[0], "__name__", "text")
    kind = kind.lower().partition(" ")[0]
    return _KINDS.get(kind, "TEXT")


def _names(option: Any) -> str:
    given = ", ".join((*option.opts, *option.secondary_opts))
    return f"{given} {kind_of(option)}".rstrip()


def _help(option: Any) -> str:
    """What it does, between which values, and what it is where it is not given."""
    said, default = option.help or "", option.default
    low, high = (getattr(option, name, None) for name in ("min", "max"))
    if low is None and high is None:  # where click has a type of its own for it
        kind = getattr(option, "type", None)
        low, high = (getattr(kind, name, None) for name in ("min", "max"))
    notes = []
    if low is not None and high is not None:
        notes.append(f"{low:g} to {high:g}")
    elif low is not None and low > 0:
        notes.append(f"{low:g} or more")
    told = "default" in said or callable(default) or option.is_flag
    if not told and default not in (None, "", (), []):
        notes.append(f"default {default:g}" if isinstance(default, float) else f"default {default}")
    return f"{said} [{', '.join(notes)}]" if notes else said


def _rows(entries: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Name and help; two to a line where all of them are short enough for that."""
    half = width // 2
    across = max(len(name) for name, _ in entries if len(name) <= _ACROSS or len(entries) == 1)
    whole = [f"  {name.ljust(across)}  {said}" for name, said in entries]
    if len(entries) > 1 and all(len(line) < half for line in whole):
        lefts, rights = whole[: (len(whole) + 1) // 2], whole[(len(whole) + 1) // 2 :]
        for row, left in enumerate(lefts):
            right = rights[row] if row < len(rights) else ""
            yield f"{left.ljust(half)}{right}".rstrip()
        return
    for name, said in entries:
        room = max(20, width - across - 4)
        first, *more = textwrap.wrap(" ".join(said.split()), room) or [""]
        if len(name) > across:
            yield f"  {name}"
            name = ""
        yield f"  {name.ljust(across)}  {first}".rstrip()
        for line in more:
            yield f"  {' ' * across}  {line}"
