"""How well a model in training decodes: causal R² on some samples of each session.

Legend: S samples, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch_brain.batching import collate

from poyo_edge.arrays import Float64
from poyo_edge.metrics import r2_per_dim
from poyo_edge.model import POYO
from poyo_edge.training.sources import TrainingSession
from poyo_edge.training.windows import WindowDataset

BATCH = 32


class Validation:
    """Samples of each session's split, decoded from the window before them.

    Args:
        dataset: where windows come from.
        sessions: those to judge; one without the split or with too few samples is left out.
        n_samples: evenly spaced in the split, for each session.
        split: to judge on.
    """

    def __init__(
        self,
        dataset: WindowDataset,
        sessions: Sequence[TrainingSession],
        n_samples: int,
        split: str = "valid",
    ) -> None:
        self._dataset = dataset
        self._samples: dict[str, tuple[Float64, Float64, TrainingSession]] = {}
        for session in sessions:
            if split not in session.recording.domains:
                continue
            times, truth = session.recording.samples(session.recording.domains[split])
            chosen = np.unique(np.linspace(0, len(times) - 1, n_samples).astype(int))
            if len(times) >= 2 and (truth[chosen].std(axis=0) > 0).all():
                self._samples[session.session_id] = times[chosen], truth[chosen], session

    @property
    def session_ids(self) -> list[str]:
        """Sessions that are judged."""
        return list(self._samples)

    def r2(self, model: POYO, session_ids: Sequence[str]) -> dict[str, float]:
        """Session → mean R² of the outputs; the model is left in the mode that it was in."""
        training, device = model.training, next(model.parameters()).device
        model.eval()
        try:
            return {name: self._r2(model, name, device) for name in session_ids}
        finally:
            model.train(training)

    def _r2(self, model: POYO, session_id: str, device: torch.device) -> float:
        times, truth, session = self._samples[session_id]
        scale, offset = session.scale.arrays(truth.shape[1])
        decoded = []
        for first in range(0, len(times), BATCH):
            some = times[first : first + BATCH]
            batch = collate([self._dataset.causal(session_id, float(t)) for t in some])
            decoded.append(predict(model, batch, device)[:, 0])
        return float(r2_per_dim(truth, np.concatenate(decoded) * scale + offset).mean())


def predict(model: POYO, batch: Mapping[str, Any], device: torch.device) -> Float64:
    """Predictions of a batch, (B, Q, O) in the model's scale."""
    with torch.inference_mode():
        found = model(**{name: value.to(device) for name, value in batch.items()})
    return np.asarray(found.double().cpu())
