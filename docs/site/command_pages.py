"""Reference of the command line and of its errors, from the application itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from known_commands import is_argument

from poyo_edge import errors
from poyo_edge.cli.help import REST, kind_of, place_of

INDEX = "reference/commands/index.md"
CODES = {
    0: "done",
    1: "a bug of ours: please tell us, with `POYO_EDGE_DEBUG=1` before the command",
    2: "usage: a command, option or value that makes no sense here",
    3: "a check failed: parity, accuracy, golden windows; or a run that decoded nothing",
    4: "environment: a library, a GPU or a backend is missing",
    5: "file: unreadable, damaged, of another version, or none of what was expected",
    130: "interrupted: Ctrl-C or SIGTERM; what was done is kept where the command says so",
}
"""Exit code → what it means."""


def pages(commands: Mapping[str, Any]) -> dict[str, str]:
    """Address of a page → its text: one for each command that is shown, and the list of them."""
    shown = {name: command for name, command in commands.items() if not command.hidden}
    panels = dict[str, list[str]]()
    for name, command in shown.items():
        panels.setdefault(command.rich_help_panel or "Commands", []).append(name)
    index = [
        "# Commands\n\nMade from the command line itself, as `poyo-edge COMMAND --help` shows it. "
        "`--json` prints exactly one JSON object on stdout ([its keys](../json.md)); progress "
        "goes to stderr. [Exit codes](../errors.md) are the same for all.\n"
    ]
    for panel, names in panels.items():
        rows = [f"| [`{name}`]({name}.md) | {_summary(shown[name])} |" for name in names]
        index.append(f"## {panel}\n\n| command | what it does |\n|---|---|\n" + "\n".join(rows))
    made = {f"reference/commands/{name}.md": page(name, c) for name, c in shown.items()}
    return {INDEX: "\n\n".join(index) + "\n", **made}


def page(name: str, command: Any) -> str:
    """One command: what it does, how it is called, what it takes."""
    arguments = [p for p in command.params if is_argument(p)]
    options = [p for p in command.params if not is_argument(p) and not p.hidden]
    usage = " ".join(["poyo-edge", name, *(place_of(p) for p in arguments)])
    parts = [f"# poyo-edge {name}", command.help.strip(), f"```text\n{usage} [OPTIONS]\n```"]
    if command.epilog:
        parts.append(f"```bash\n{command.epilog.removeprefix('Example: ')}\n```")
    if arguments:
        rows = [f"| `{place_of(p)}` | {_cell(p.help)} |" for p in arguments]
        parts.append("## Arguments\n\n| argument | |\n|---|---|\n" + "\n".join(rows))
    panels = dict[str, list[Any]]()
    for option in options:
        panels.setdefault(getattr(option, "rich_help_panel", None) or REST, []).append(option)
    for panel, given in panels.items():
        rows = [_option_row(option) for option in given]
        parts.append(f"## {panel}\n\n| option | default | |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def errors_page() -> str:
    """Exit codes, and the classes of errors behind them."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in CODES.items())
    kinds = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.PoyoEdgeError)
    ]
    if unknown := sorted({kind.exit_code for kind in kinds} - {*CODES}):
        raise ValueError(f"exit codes: expected those of CODES, got {unknown}")
    kinds.sort(key=lambda kind: kind.exit_code)
    rows = "\n".join(
        f"| {kind.exit_code} | `{kind.__name__}` | {_builtin(kind)} | {_first(kind.__doc__)} |"
        for kind in kinds
    )
    return (
        "# Errors\n\nAn error is one line on stderr: what was expected, what came, what to do. "
        "`POYO_EDGE_DEBUG=1` before a command shows the traceback too.\n\n"
        f"## By exit code\n\n| exit | meaning |\n|---:|---|\n{codes}\n\n"
        "## In Python\n\nAll are in `poyo_edge.errors` and inherit the builtin beside them, so "
        "code that never heard of poyo-edge catches them too.\n\n"
        f"| exit | class | also a | when |\n|---:|---|---|---|\n{rows}\n"
    )


def _builtin(kind: type) -> str:
    found = [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"]
    return f"`{found[0]}`"


def _summary(command: Any) -> str:
    return _cell(command.help.strip().partition("\n\n")[0])


def _first(text: str | None) -> str:
    return _cell((text or "").strip().partition("\n\n")[0])


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def _option_row(option: Any) -> str:
    names = ", ".join(f"`{text}`" for text in (*option.opts, *option.secondary_opts))
    default = option.default
    if option.required:
        shown = "required"
    elif callable(default) or default in (None, "", False, (), []):
        shown = ""
    else:
        shown = f"`{default}`"
    return f"| {names} {kind_of(option)} | {shown} | {_cell(option.help)} |"
