"""POYO+ (layout C): a readout for each task, and a table whose row is added to the session's.

For one task that is a POYO whose session rows hold the sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from poyo_edge.checkpoint.keys import SESSION_TABLE, TASK_TABLE, TASK_VOCAB
from poyo_edge.errors import CheckpointError, UsageError

_HEAD = re.compile(r"readout\.projections\.(.+)\.(weight|bias)$")


def tasks_of(path: Path, state: Mapping[str, Any], *, counted: bool) -> dict[str, int]:
    """Task → row of the task table, in the order of the readouts; empty for a POYO.

    Args:
        path: of the file.
        state: key → tensor or vocabulary.
        counted: whether its writer counts the tasks in the order of their readouts, as
            torch_brain does.

    Raises:
        CheckpointError: readouts and table do not fit each other.
    """
    heads = [m[1] for key in state if (m := _HEAD.match(key)) and m[2] == "weight"]
    if not heads and not any(key.startswith("task_emb.") for key in state):
        return {}
    table = state.get(TASK_TABLE)
    if not isinstance(table, Tensor) or table.dim() != 2 or not heads:
        got = "no such key" if table is None else f"{len(heads)} readouts"
        raise _wrong(path, TASK_TABLE, "a row for each readout of a POYO+", got)
    rows = _rows(path, state, heads, len(table) if counted else 0)
    if any(type(row) is not int or not 0 <= row < len(table) for row in rows.values()):
        raise _wrong(path, TASK_TABLE, f"rows 0 to {len(table) - 1}", f"{rows!s:.120}")
    return rows


def with_one_task(
    path: Path, state: Mapping[str, Any], tasks: dict[str, int], task: str | None
) -> tuple[dict[str, Any], str]:
    """The POYO that a POYO+ is for one task, and that task; a POYO as it is, and "".

    Source: torch_brain ``POYOPlus.forward``: queries are ``session_emb + task_emb``, and the
    readout is the task's own.

    Raises:
        UsageError: no such task, none named where there are several, or one named for a POYO.
    """
    if not tasks:
        if task is not None:
            raise UsageError(f"{path}: task: expected none for a POYO, got {task!r}")
        return dict(state), ""
    names = list(tasks)
    chosen = names[0] if task is None and len(names) == 1 else task
    if chosen not in tasks:
        got = "none named" if chosen is None else repr(chosen)
        raise UsageError(
            f"{path}: task: expected one of the tasks {names}, got {got}; name one (--task)"
        )
    one = {k: v for k, v in state.items() if not k.startswith(("task_emb.", "readout."))}
    row = state[TASK_TABLE][tasks[chosen]]
    one[SESSION_TABLE] = _added(path, state.get(SESSION_TABLE), row)
    for part in ("weight", "bias"):
        key = f"readout.projections.{chosen}.{part}"
        if key in state:
            one[f"readout.{part}"] = state[key]
    return one, chosen


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
            TASK_TABLE,
            f"{len(heads) + 1} rows, one for each of {len(heads)} readouts behind row 0",
            f"{n_rows} rows" if n_rows else "rows that its trainer numbers in a way of its own",
            do="say which row is whose: --vocab FILE.json with 'task_emb.vocab' (task → row)",
        )
    return {head: i for i, head in enumerate(heads, start=1)}


def _added(path: Path, table: object, row: Tensor) -> Tensor:
    if not isinstance(table, Tensor) or table.dim() != 2 or table.shape[1:] != row.shape:
        got = tuple(table.shape) if isinstance(table, Tensor) else type(table).__name__
        raise _wrong(path, SESSION_TABLE, f"rows as wide as {TASK_TABLE}, {len(row)}", got)
    return table.float() + row.float()


def _wrong(
    path: Path, key: str, expected: str, got: object, do: str = "save the checkpoint again"
) -> CheckpointError:
    return CheckpointError(path, key, expected=expected, got=got, do=do)
