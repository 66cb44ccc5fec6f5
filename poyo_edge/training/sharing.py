"""Embeddings that units of several sessions share, and how they become rows of the tables.

``unit_emb[unit] = shared[key of the unit] + statistics[unit] @ weight + own[unit]``, and
``session_emb[session] = shared[subject] + own[session]``. The model has the sums alone: gradients
of its tables are passed on to the parts, and checkpoints keep their layout.

Legend: U rows of the unit table, S rows of the session table, C keys, F statistics, D model dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poyo_edge.arrays import Float64
from poyo_edge.model import POYO
from poyo_edge.training.recipe import Recipe
from poyo_edge.training.sources import TrainingSession
from poyo_edge.unit_statistics import NAMES, electrode_of, unit_statistics

_PARTS = ("shared", "weight", "own", "session_shared", "session_own")
_SD_FLOOR = 0.1
"""Statistics that hardly differ in training say little of a session where they do."""


def electrode_key(subject: str, unit_id: str) -> str:
    """What units at one electrode of one animal have in common: "SUBJECT/ELECTRODE"."""
    return f"{subject}/{electrode_of(unit_id)}"


class SharedTables:
    """The parts of the two tables; see the module.

    Args:
        model: whose tables are written.
        sessions: of the run.
        init_std: standard deviation of new shared rows.
    """

    def __init__(
        self, model: POYO, sessions: Sequence[TrainingSession], init_std: float = 0.02
    ) -> None:
        units, subjects = model.unit_emb, [s.recording.subject_id for s in sessions]
        named = [
            (unit, electrode_key(subject, unit))
            for session, subject in zip(sessions, subjects, strict=True)
            for unit in session.recording.unit_ids
        ]
        self.keys = list(dict.fromkeys(key for _, key in named))
        self.subjects = list(dict.fromkeys(subjects))
        place = {key: i for i, key in enumerate(self.keys)}
        self._key_rows = torch.tensor([place[key] for _, key in named])
        raw = np.concatenate([session_statistics(s) for s in sessions])
        self.mean, self.sd = raw.mean(0), np.maximum(raw.std(0), _SD_FLOOR)
        self._statistics = torch.from_numpy(((raw - self.mean) / self.sd).astype(np.float32))
        of_subject = [self.subjects.index(subject) for subject in subjects]
        self._session_keys = torch.tensor(of_subject)
        owners = np.repeat(np.arange(len(sessions)), [len(s.recording.unit_ids) for s in sessions])
        self._owner = torch.from_numpy(owners)
        dim = units.embedding_dim
        self.parts: dict[str, nn.Parameter] = {
            "shared": nn.Parameter(torch.randn(len(self.keys), dim) * init_std),
            "weight": nn.Parameter(torch.zeros(len(NAMES), dim)),
            "own": nn.Parameter(torch.zeros(len(named), dim)),
            "session_shared": nn.Parameter(torch.randn(len(self.subjects), dim) * init_std),
            "session_own": nn.Parameter(torch.zeros(len(sessions), dim)),
        }
        self._kept = torch.ones(len(sessions), 1)
        """Which sessions have what is their own in this step."""

    def fold(self) -> tuple[Tensor, Tensor]:
        """The unit table (U, D) and the session table (S, D), without their row 0."""
        parts = self.parts
        units = parts["shared"][self._key_rows] + self._statistics @ parts["weight"]
        units = units + parts["own"] * self._kept[self._owner]
        sessions = parts["session_shared"][self._session_keys]
        return units, sessions + parts["session_own"] * self._kept

    def leave_out(self, part: float) -> None:
        """Let a random part of the sessions go without what is their own, until told again."""
        self._kept = (torch.rand_like(self._kept) >= part).float()

    @torch.no_grad()
    def write(self, model: POYO) -> None:
        """Make the sums the rows of the model's tables."""
        units, sessions = self.fold()
        model.unit_emb.weight[1:] = units
        model.session_emb.weight[1:] = sessions

    def take_gradients(self, model: POYO) -> None:
        """Pass the gradients of the model's tables on to the parts."""
        tables = (model.unit_emb.weight, model.session_emb.weight)
        grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in tables]
        torch.autograd.backward(self.fold(), [grad[1:] for grad in grads])
        for table in tables:
            table.grad = None

    def state(self, *, whole: bool) -> dict[str, Any]:
        """Plain values for a checkpoint; ``whole`` adds what belongs to single rows."""
        names = _PARTS if whole else ("shared", "weight", "session_shared")
        return {
            "by": "electrode",
            "keys": list(self.keys),
            "subjects": list(self.subjects),
            "statistics": list(NAMES),
            "mean": torch.from_numpy(self.mean.astype(np.float32)),
            "sd": torch.from_numpy(self.sd.astype(np.float32)),
            **{name: self.parts[name].detach().clone() for name in names},
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Go on with the parts of an interrupted run."""
        for name in _PARTS:
            self.parts[name].copy_(state[name])


def session_statistics(session: TrainingSession) -> Float64:
    """Statistics of the units' activity in the split that is trained on, (units, F)."""
    intervals, recording = session.intervals, session.recording
    cut = recording.cut(float(intervals[:, 0].min()), float(intervals[:, 1].max()))
    return unit_statistics(cut.spike_times, cut.spike_units, len(recording.unit_ids), intervals)


def shared_tables(
    model: POYO, sessions: Sequence[TrainingSession], recipe: Recipe
) -> SharedTables | None:
    """The parts that a recipe wants shared, written into the model; None where it wants none."""
    if not recipe.share_units:
        return None
    tables = SharedTables(model, sessions, model.unit_emb.init_std)
    tables.write(model)
    return tables
