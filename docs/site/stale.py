"""Commands, options and recipes that a page names and that are not there (any more)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from known_commands import is_argument, known_commands, spellings

PROGRAM = "poyo-edge"
OTHERS = frozenset(
    {
        "--system-site-packages",
        "--index-url",
        "--no-deps",
        "--force-reinstall",
        "--cov",
        "--gpus",
        "--group-add",
        "--cap-add",
    }
)
"""Options of other people's programs that stand alone in a sentence."""

_FENCE = re.compile(r"^([ ]*)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_SHELLS = ("bash", "sh", "console", "")
_SCRIPT = re.compile(r"\b(?:benchmarks|fuzz|tests)/[\w/]+\.py\b")
_RECIPE = re.compile(r"^([a-z][\w-]*)(?: [^\n]*)?:(?: [^\n]*)?$", re.MULTILINE)
_JUST = re.compile(r"(?:^|&& )just ([a-z][\w-]*)")
_ADDED = re.compile(r"[\"'](--[a-z][\w-]*)[\"']")


def find_stale(text: str, root: Path) -> list[str]:
    """What a page tells people to type and that does not exist, a sentence for each.

    Args:
        text: the page, Markdown.
        root: of the project, where its recipes and scripts are.
    """
    commands, problems = known_commands(), list[str]()
    for language, block in ((found[2], found[3]) for found in _FENCE.finditer(text)):
        if language in _SHELLS:
            for line in _lines(block):
                problems += _in_line(line, commands, root, whole=language in ("bash", "sh"))
    alone = {word for command in commands.values() for word in spellings(command)}
    alone |= OTHERS | options_of_scripts(root)
    for code in (" ".join(found.split()) for found in _INLINE.findall(_FENCE.sub("", text))):
        problems += _in_line(code, commands, root, whole=False)
        if code.startswith("--") and (word := re.match(r"--[\w-]+", code)) and word[0] not in alone:
            problems.append(f"{word[0]}: expected an option of some command, got none of that name")
    return problems


@cache
def options_of_scripts(root: Path) -> set[str]:
    """Long options of the scripts that come with the project."""
    scripts = [path for folder in ("benchmarks", "fuzz", "tests") for path in
               (root / folder).glob("**/*.py")]  # fmt: skip
    return {word for path in scripts for word in _ADDED.findall(path.read_text("utf-8"))}


@cache
def recipes(root: Path) -> set[str]:
    """Names of the recipes in the Justfile."""
    return set(_RECIPE.findall((root / "Justfile").read_text("utf-8")))


def _lines(block: str) -> Iterator[str]:
    """Lines of a shell, those that end in a backslash joined with the next."""
    yield from re.sub(r"\\\n\s*", " ", block).splitlines()


def _in_line(line: str, commands: Mapping[str, Any], root: Path, *, whole: bool) -> Iterable[str]:
    """What one line names that is not there; a whole one is parsed as the program would."""
    for script in _SCRIPT.findall(line):
        if not (root / script).is_file():
            yield f"{script}: expected a file of the project, got none"
    for recipe in _JUST.findall(line.strip()):
        if recipe not in recipes(root):
            yield f"just {recipe}: expected a recipe of the Justfile, got none of that name"
    for words in _calls(line):
        yield from _in_call(words, commands, whole=whole)


def _calls(line: str) -> Iterator[list[str]]:
    """The words behind each ``poyo-edge`` of a line, to the end of its command."""
    try:
        words = shlex.split(line.replace("'s ", "’s "), comments=True)
    except ValueError:  # a quotation mark that is an apostrophe
        words = line.split()
    call: list[str] | None = None
    for word in words:
        if call is not None and word in ("|", "&&", "||", "&", ">", "2>", ";"):
            yield call
            call = None
        elif call is not None:
            call.append(word)
        elif word.endswith(PROGRAM) and not line.startswith(("pip ", "import")):
            call = []
    if call is not None:
        yield call


def _in_call(words: list[str], commands: Mapping[str, Any], *, whole: bool) -> Iterable[str]:
    """What is wrong with one call."""
    name = words[0].rstrip(".,;:") if words else ""
    if not re.fullmatch(r"[a-z][a-z-]*", name):
        return  # the program alone, its version, or a placeholder
    command = commands.get(name)
    if command is None:
        yield f"{PROGRAM} {name}: expected a command, got none of that name"
        return
    known = spellings(command)
    options = [word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)]
    unknown = [word.rstrip(".,;:") for word in options if word.rstrip(".,;:") not in known]
    for option in unknown:
        yield f"{PROGRAM} {name} {option}: expected an option of the command, got none of that name"
    if whole and not unknown and "…" not in words and "--help" not in options:
        yield from _parsed(command, name, words[1:])


def _parsed(command: Any, name: str, words: list[str]) -> Iterable[str]:
    """What the program itself says of the words, without anything being done."""
    if any(is_argument(p) and p.nargs == -1 for p in command.params):
        words = [word for word in words if word != "..."]
    if words and words[0].endswith(".toml"):
        return  # options of a rig file, which stands on no page
    try:
        command.make_context(name, [*words])
    except Exception as error:
        said = error.format_message() if hasattr(error, "format_message") else str(error)
        yield f"{PROGRAM} {name} {' '.join(words)}: {' '.join(said.split())}"
