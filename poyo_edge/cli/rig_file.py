"""A rig file: all that ``run`` can be told, as TOML, so that a rig is started by one word.

``poyo-edge run rig.toml`` reads it; options behind it replace what it says, or are added where an
option may be repeated. ``--print-config`` prints such a file and runs nothing. Keys are the names
of the options without their dashes, and ``artifact``. Paths are as on the command line.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.help import LAST, ScreenCommand, kind_of
from poyo_edge.errors import FileProblemError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENDING = ".toml"
PRINT = "print_config"
"""The parameter of ``--print-config``."""
RigPath = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="A folder NAME.poyo, or a rig file NAME.toml.")
]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Print all of it as a rig file, and run nothing.")
]


class RigCommand(ScreenCommand):
    """A command that takes a rig file where its artifact stands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words of a rig file first, then what was typed behind it."""
        if args and args[0].endswith(ENDING):
            args = [*words_of(Path(args[0]), self), *args[1:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run it, or print what it would run with."""
        if ctx.params.get(PRINT):
            print(config_text(self, ctx.params), end="")
            return None
        return super().invoke(ctx)


def words_of(path: Path, command: Any) -> list[str]:
    """What a rig file says, as words of the command line.

    Raises:
        FileProblemError: it cannot be read, or is no TOML.
        UsageError: a key that is no option, with the one that was meant, perhaps; or a value that
            none takes.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileProblemError(
            path, "file", expected="a rig file that can be read", got=error.strerror or error,
            do="check the path",
        ) from None  # fmt: skip
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileProblemError(
            path, "file", expected="TOML", got=str(error), do="mend that line"
        ) from None
    known, words = _keys(command), list[str]()
    for key, value in values.items():
        name = key.replace("_", "-")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; you may mean {near[0]!r}" if near else ""
            raise UsageError(
                f"{path}: {key}: expected artifact or the name of an option of run, got neither"
                f"{hint}; poyo-edge run {path} --print-config shows all once it is mended"
            )
        words += _words(f"{path}: {key}", known[name], value)
    return words


def config_text(command: Any, params: Mapping[str, Any]) -> str:
    """A rig file of what a command was given; what it was not given stands as a comment."""
    lines = [f"# poyo-edge {command.name} THIS-FILE{ENDING}"]
    for key, parameter in _keys(command).items():
        value = params.get(parameter.name)
        if value is None or value == () or value == []:
            lines.append(f"# {key} = {kind_of(parameter) or 'true'}")
        else:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _keys(command: Any) -> dict[str, Any]:
    """Key → parameter; what only says how to print is left out."""
    return {
        max((*p.opts, *p.secondary_opts), key=len).lstrip("-"): p
        for p in command.params
        if getattr(p, "rich_help_panel", None) != LAST and p.name != PRINT
        and not getattr(p, "hidden", False)
    }  # fmt: skip


def _words(where: str, parameter: Any, value: Any) -> Iterable[str]:
    flag = getattr(parameter, "is_flag", False)
    several = parameter.multiple if hasattr(parameter, "multiple") else False
    if flag != isinstance(value, bool) or (isinstance(value, list) and not several):
        expected = "true or false" if flag else "a list" if several else "one text or number"
        raise UsageError(f"{where}: expected {expected}, got {value!r}; correct the file")
    if flag:
        return [parameter.opts[0]] if value else []
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, (dict, list, bool)) for item in items):
        raise UsageError(f"{where}: expected texts or numbers, got {value!r}; correct the file")
    if parameter.param_type_name == "argument":
        return [str(item) for item in items]
    return [word for item in items for word in (parameter.opts[0], str(item))]


def _toml(value: Any) -> str:
    """A value as TOML writes it; its texts are those of JSON."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)
