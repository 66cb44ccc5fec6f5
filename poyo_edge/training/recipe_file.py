"""Recipes as files: TOML, by name or by path, each value replaceable.

TOML has real numbers (YAML 1.1 reads 4e-3 as text), comments, and a reader in Python itself.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

from poyo_edge.errors import MissingExtraError, UsageError
from poyo_edge.records import FieldError, checked, field_hints, in_words, optional
from poyo_edge.spec import ModelSpec
from poyo_edge.training.recipe import Recipe, Source

if sys.version_info >= (3, 11):
    import tomllib
else:
    try:
        import tomli as tomllib
    except ImportError as error:
        raise MissingExtraError("tomli", "train", "reading recipes") from error

_PACKAGE = __name__.rpartition(".")[0]
_SIZES = ("spec", "data")
_LENGTHS, _RATES = ("steps", "epochs", "steps_per_session"), ("lr", "base_lr")
"""Setting one of these takes the others away: a recipe has one of them."""
_LEFT = "as_trained"
"""Setting a key that the recipe leaves to a checkpoint takes it from this list."""


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    files = resources.files(_PACKAGE).joinpath("recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_recipe(name: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and replace some of its values.

    Args:
        name: a name of ``recipe_names``, or a TOML file.
        overrides: "key=value" each; keys of tables are joined by dots, like "model.dim=64" or
            "data.recordings.behavior=hand.vel"; values are TOML, or plain text.

    Raises:
        UsageError: no such recipe, no TOML, a key that does not exist (with what was meant,
            perhaps), or a value of another kind.
    """
    where, text = _text(str(name))
    values = _parsed(where, text)
    for override in overrides:
        _replace(values, override)
    return recipe_from(values, where)


def recipe_from(values: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from the tables of a TOML file.

    Raises:
        UsageError: see ``load_recipe``.
    """
    values = dict(values)
    model = _table(where, "model", values.pop("model", {}))
    data = _table(where, "data", values.pop("data", {}))
    checked = _checked(Recipe, values, where, "", extra=("model", "data"), without=_SIZES)
    try:
        model = {"dim_out": 2, **_checked(ModelSpec, model, where, "model.")}
        model.setdefault("rotating_pairs", int(model.get("dim_head", 4)) // 4)
        sources = {
            name: Source.from_json(_source(_table(where, f"data.{name}", table), where, name))
            for name, table in data.items()
        }
        return Recipe(
            spec=ModelSpec.from_json(model),
            **({"data": sources} if sources else {}),  # type: ignore[arg-type]
            **checked,
        )
    except UsageError as error:
        if str(error).startswith(where):
            raise
        raise UsageError(f"{where}: {error}") from None


def _text(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        try:
            return name, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UsageError(
                f"{name}: expected a recipe in TOML, got a file that cannot be read ({reason}); "
                f"check the path"
            ) from None
    if name not in recipe_names():
        raise UsageError(
            f"recipe: expected a TOML file or one of {', '.join(recipe_names())}, got {name!r}"
            f"{_meant(name, recipe_names())}"
        )
    file = resources.files(_PACKAGE).joinpath("recipes", f"{name}.toml")
    return name, file.read_text(encoding="utf-8")


def _parsed(where: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: expected TOML, got a line that is none: {error}") from None


def _replace(values: dict[str, Any], override: str) -> None:
    (*tables, last), text = _key_and_value(override)
    if not tables:
        for alternatives in (_LENGTHS, _RATES):
            for other in alternatives if last in alternatives else ():
                values.pop(other, None)
        if isinstance(values.get(_LEFT), list):
            values[_LEFT] = [key for key in values[_LEFT] if key != last]
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise UsageError(f"--set: expected a table at {table!r}, got a value: {override!r}")
    try:
        values[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[last] = text


def _key_and_value(override: str) -> tuple[list[str], str]:
    """The parts of the key before the first "=" that ends one, and the text behind it."""
    at = override.find("=")
    while at >= 0:
        if parts := _parts(override[:at]):
            return parts, override[at + 1 :].strip()
        at = override.find("=", at + 1)
    raise UsageError(f"--set: expected KEY=VALUE, got {override!r}")


def _parts(key: str) -> list[str]:
    """The parts of a key, dotted or quoted as TOML has them; none of what is no key."""
    try:
        found: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return []
    parts = []
    while isinstance(found, dict) and len(found) == 1:
        ((part, found),) = found.items()
        parts.append(part)
    return parts if found == 0 else []


def _table(where: str, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {name}: expected a table, got {value!r}")
    return copy.deepcopy(value)


def _source(values: dict[str, Any], where: str, name: str) -> dict[str, Any]:
    for key in ("scale", "offset", "recordings"):
        if key in values and not isinstance(values[key], list):
            values[key] = [values[key]]
    return _checked(Source, values, where, f"data.{name}.")


def _checked(
    owner: type,
    values: dict[str, Any],
    where: str,
    prefix: str,
    extra: Sequence[str] = (),
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """The values of a table, with the types of the class that they are for."""
    hints = field_hints(owner)
    names = [f.name for f in dataclasses.fields(owner) if f.name not in without]
    for key in values:
        if key not in names:
            known = [prefix + name for name in [*names, *extra]]
            raise UsageError(
                f"{where}: {prefix}{key}: expected a key of a recipe, got an unknown one"
                f"{_meant(prefix + key, known)}; known: {', '.join(known)}"
            )
    return {key: _converted(f"{where}: {prefix}{key}", value, hints[key])
            for key, value in values.items()}  # fmt: skip


def _converted(where: str, value: Any, hint: Any) -> Any:
    try:
        return checked(hint, _meant_by(value, hint), where)
    except FieldError as problem:
        raise UsageError(
            f"{problem.place}: expected {in_words(problem.hint)}, got {problem.value!r}"
        ) from None


def _meant_by(value: Any, hint: Any) -> Any:
    """What people may write in place of a value: "none" for None, integers for numbers."""
    kind, may_be_none = optional(hint)
    if may_be_none and value in ("none", "", []):
        return None
    if kind is float and type(value) is int:
        return float(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        return [_meant_by(item, get_args(kind)[0]) for item in value]
    return value


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
