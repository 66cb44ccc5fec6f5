"""Which relative of POYO wrote the keys, and how they become those of today's POYO.

Keys of 2024 lie under ``perceiver_io.`` (layout A) and are renamed. POYO+ (layout C) has a readout
for each task and adds the task's row to the session's: for one task that is a POYO whose session
rows hold the sum. CaPOYO (D), POSSM (E) and adapters that were not merged are refused by name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from poyo_edge.checkpoint.container import TASK_VOCAB
from poyo_edge.errors import CheckpointError, UsageError

_TASK_TABLE = "task_emb.weight"
_SESSIONS = "session_emb.weight"
_HEAD = re.compile(r"readout\.projections\.(.+)\.(weight|bias)$")
_RENAMED = (
    (re.compile(r"^perceiver_io\."), ""),
    (re.compile(r"^spike_type_emb\."), "token_type_emb."),
    (re.compile(r"^rotary_emb\.inv_freq$"), "rotary_emb.omega"),
)
_REFUSED = (
    (
        r"(?:(?:\w+_)?lora|(?:to_\w+|net\.\d)\.[AB](?:\.weight)?$)",
        "a LoRA checkpoint whose adapters are not merged into the weights",
        "merge them where the model is (weight + scale · B · A), and save the state dict again",
    ),
    (
        r"backbone\.",
        "layout E (POSSM, a recurrent model)",
        "recurrent models are not supported yet; pass a POYO checkpoint",
    ),
    (
        r"input_value_map\b",
        "layout D (CaPOYO, calcium traces instead of spikes)",
        "there are no spikes to stream into it; pass a POYO checkpoint",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the keys say, and the ``state_dict`` that today's POYO would have for it."""

    layout: str
    """ "A1", "A2" or "C"; "" for the keys of POYO since November 2024."""
    because: str
    """The key that decided."""
    state: dict[str, Any]
    tasks: dict[str, int]
    """Task → row of the task table, in the order of the heads; empty for a POYO."""


def foreign_layout(keys: Iterable[str]) -> str | None:
    """What a model is that cannot be exported at all, by its keys; else None."""
    found = _refusal(list(keys))
    return found[0] if found else None


def recognise(path: Path, state: Mapping[str, Any], *, counted: bool = True) -> Family:
    """Tell the layout from the keys and rename those of 2024.

    Args:
        path: of the file.
        state: key → tensor or vocabulary.
        counted: whether its writer counts the tasks in the order of their readouts, as
            torch_brain does.

    Raises:
        CheckpointError: a model that is no POYO, or keys that make no sense together.
    """
    refusal = _refusal(list(state))
    if refusal:
        what, do, key = refusal
        raise CheckpointError(
            path,
            "layout",
            expected="a POYO or POYO+ (layouts A to C)",
            got=f"{what}, by the key {key!r}",
            do=do,
        )
    layout, because = "", ""
    old = next((key for key in state if key.startswith("perceiver_io.")), None)
    if old is not None:
        first = "perceiver_io.rotary_emb.inv_freq"
        layout, because = ("A1", first) if first in state else ("A2", old)
        state = _renamed(path, state)
    tasks = _tasks(path, state, counted)
    if tasks and not layout:
        layout, because = "C", _TASK_TABLE
    return Family(layout=layout, because=because, state=dict(state), tasks=tasks)


def with_one_task(path: Path, family: Family, task: str | None) -> tuple[dict[str, Any], str]:
    """The POYO that a POYO+ is for one task, and that task; a POYO as it is, and "".

    Source: torch_brain ``POYOPlus.forward``: queries are ``session_emb + task_emb``, and the
    readout is the task's own.

    Raises:
        UsageError: no such task, none named where there are several, or one named for a POYO.
    """
    if not family.tasks:
        if task is not None:
            raise UsageError(f"{path}: task: expected none for a POYO, got {task!r}")
        return family.state, ""
    names = list(family.tasks)
    chosen = names[0] if task is None and len(names) == 1 else task
    if chosen not in family.tasks:
        got = "none named" if chosen is None else repr(chosen)
        raise UsageError(
            f"{path}: task: expected one of the tasks {names}, got {got}; name one (--task)"
        )
    state = {k: v for k, v in family.state.items() if not k.startswith(("task_emb.", "readout."))}
    row = family.state[_TASK_TABLE][family.tasks[chosen]]
    state[_SESSIONS] = _added(path, state.get(_SESSIONS), row)
    for part in ("weight", "bias"):
        key = f"readout.projections.{chosen}.{part}"
        if key in family.state:
            state[f"readout.{part}"] = family.state[key]
    return state, chosen


def _refusal(keys: list[str]) -> tuple[str, str, str] | None:
    for mark, name, do in _REFUSED:
        pattern = re.compile(rf"(?:^|\.){mark}", re.IGNORECASE)
        for key in keys:
            if pattern.search(key):
                return name, do, key
    return None


def _renamed(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    renamed = dict[str, Any]()
    for key, value in state.items():
        name = key
        for pattern, to in _RENAMED:
            name = pattern.sub(to, name)
        if name in renamed:
            raise _wrong(path, name, "one key of that name", f"it and {key!r}")
        renamed[name] = value
    return renamed


def _tasks(path: Path, state: Mapping[str, Any], counted: bool) -> dict[str, int]:
    """Task → row of the task table; nothing for a model with one readout."""
    heads = [m[1] for key in state if (m := _HEAD.match(key)) and m[2] == "weight"]
    if not heads and not any(key.startswith("task_emb.") for key in state):
        return {}
    table = state.get(_TASK_TABLE)
    if not isinstance(table, Tensor) or table.dim() != 2 or not heads:
        got = "no such key" if table is None else f"{len(heads)} readouts"
        raise _wrong(path, _TASK_TABLE, "a row for each readout of a POYO+", got)
    rows = _rows(path, state, heads, len(table) if counted else 0)
    if any(type(row) is not int or not 0 <= row < len(table) for row in rows.values()):
        raise _wrong(path, _TASK_TABLE, f"rows 0 to {len(table) - 1}", f"{rows!s:.120}")
    return rows


def _rows(path: Path, state: Mapping[str, Any], heads: list[str], n_rows: int) -> dict[str, int]:
    """The file's own table of tasks; else numbers that are names; else one row for each readout,
    in their order, behind row 0 (torch_brain ``register_modality`` counts from 1)."""
    vocab = state.get(TASK_VOCAB)
    if isinstance(vocab, Mapping):
        if not set(heads) <= set(vocab):
            raise _wrong(path, TASK_VOCAB, f"the tasks {heads}", f"{list(vocab)!s:.120}")
        return {head: vocab[head] for head in heads}
    if all(head.isdecimal() for head in heads):
        return {head: int(head) for head in heads}
    if n_rows != len(heads) + 1:
        raise _wrong(
            path,
            _TASK_TABLE,
            f"{len(heads) + 1} rows, one for each of {len(heads)} readouts behind row 0",
            f"{n_rows} rows" if n_rows else "rows that its trainer numbers in a way of its own",
            do="say which row is whose: --vocab FILE.json with 'task_emb.vocab' (task → row)",
        )
    return {head: i for i, head in enumerate(heads, start=1)}


def _added(path: Path, table: object, row: Tensor) -> Tensor:
    if not isinstance(table, Tensor) or table.dim() != 2 or table.shape[1:] != row.shape:
        got = tuple(table.shape) if isinstance(table, Tensor) else type(table).__name__
        raise _wrong(path, _SESSIONS, f"rows as wide as {_TASK_TABLE}, {len(row)}", got)
    return table.float() + row.float()


def _wrong(
    path: Path, key: str, expected: str, got: object, do: str = "save the checkpoint again"
) -> CheckpointError:
    return CheckpointError(path, key, expected=expected, got=got, do=do)
