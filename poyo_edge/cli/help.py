"""``--help`` on one screen: usage, what it does, options in groups, an example; and the list of
commands in the order of work.

Plain text, as wide as the terminal, the same where it is piped. A group of short lines stands in
two columns. Options are taken by the names that they had before, too.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, get_args

from typer.core import TyperCommand, TyperGroup

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

    old: ClassVar[Mapping[str, str]] = {}
    """What an option was called before → what it is called now."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take options by the names that they had before, too."""
        return super().parse_args(ctx, in_new_spelling(args, self.old))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help into click's formatter, which prints it."""
        formatter.write(help_text(self, ctx, shutil.get_terminal_size((100, 50)).columns))


class ScreenGroup(TyperGroup):
    """All commands on one screen."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands into click's formatter, which prints it."""
        formatter.write(commands_text(self, ctx, shutil.get_terminal_size((100, 50)).columns))


def commands_text(group: Any, ctx: Any, width: int) -> str:
    """The commands in the order of work, and how to go on.

    Args:
        group: all commands, as click has them.
        ctx: click's context, for the name that it was called by.
        width: columns of the screen.
    """
    shown = {name: one for name, one in group.commands.items() if not one.hidden}
    panels = dict[str, list[tuple[str, str]]]()
    across = max(map(len, shown))
    for name, command in shown.items():
        said = (command.help or "").partition("\n\n")[0].strip()
        panels.setdefault(command.rich_help_panel, []).append((name.ljust(across), said))
    lines = [f"Usage: {ctx.command_path} COMMAND [OPTIONS]", "", group.help or ""]
    for panel, entries in panels.items():
        lines += ["", panel, *_one_to_a_line(entries, width, across)]
    path = ctx.command_path
    lines += ["", *textwrap.wrap(
        f"{path} COMMAND --help says what it takes, with an example that runs beside what {path} "
        f"demo leaves. All take --json. {path} --version; --install-completion sets up your "
        f"shell.", width)]  # fmt: skip
    return "\n".join(lines) + "\n"


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
        told += ["", *_typed(command.epilog, width)]
    return "\n".join(told) + "\n"


def in_new_spelling(words: Sequence[str], old: Mapping[str, str]) -> list[str]:
    """What was typed behind a command, with the names that its options have now.

    Args:
        words: as they were typed.
        old: name before → name now, like ``{"--figures": "--report", "-o": "--report"}``.
    """
    told = list[str]()
    for place, word in enumerate(words):
        if word == "--":  # what follows are no options
            return [*told, *words[place:]]
        told += _word(word, old)
    return told


def _word(word: str, old: Mapping[str, str]) -> list[str]:
    name, equals, value = word.partition("=")
    if name in old:
        return [f"{old[name]}{equals}{value}"]
    short = word[:2]
    if short in old and not word.startswith("--"):  # -oFOLDER
        return [old[short], word[2:]]
    return [word]


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


def _typed(line: str, width: int) -> list[str]:
    """A call that a shell takes as it is printed, on more lines where it is long."""
    first, *more = textwrap.wrap(line, width - 2, break_on_hyphens=False, break_long_words=False)
    lines = [first, *(f"    {one}" for one in more)]
    return [f"{one} \\" for one in lines[:-1]] + lines[-1:]


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
    yield from _one_to_a_line(entries, width, across)


def _one_to_a_line(entries: Sequence[tuple[str, str]], width: int, across: int) -> Iterator[str]:
    for name, said in entries:
        room = max(20, width - across - 4)
        first, *more = textwrap.wrap(" ".join(said.split()), room) or [""]
        if len(name) > across:
            yield f"  {name}"
            name = ""
        yield f"  {name.ljust(across)}  {first}".rstrip()
        for line in more:
            yield f"  {' ' * across}  {line}"
