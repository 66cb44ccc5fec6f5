"""Names under which checkpoints keep things, for the stages of reading that share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNIT_TABLE = "unit_emb.weight"
SESSION_TABLE = "session_emb.weight"
TASK_TABLE = "task_emb.weight"
OMEGA = "rotary_emb.omega"
VOCAB_KEYS = ("unit_emb.vocab", "session_emb.vocab")
TASK_VOCAB = "task_emb.vocab"
"""Task → row, where a file or a vocabulary file says so."""


def model_section(hyper: Mapping[str, Any]) -> Mapping[str, Any]:
    """What hyper-parameters say of the model; empty when they say nothing."""
    section = hyper.get("model")
    return section if isinstance(section, Mapping) else {}


def scaled_readouts(hyper: Mapping[str, Any], task: str = "") -> list[Mapping[str, Any]]:
    """What each dataset's ``config`` says of the readout (of the task), where it states a scale."""
    datasets = hyper.get("dataset")
    sections = []
    for dataset in datasets if isinstance(datasets, (list, tuple)) else ():
        config = dataset.get("config") if isinstance(dataset, Mapping) else None
        for readout in _readouts_of(config, task):
            if isinstance(readout, Mapping) and any(
                readout.get(key) is not None for key in ("normalize_std", "normalize_mean")
            ):
                sections.append(readout)
    return sections


def _readouts_of(config: object, task: str) -> list[Any]:
    """``readout`` of a POYO; of a POYO+ those of ``multitask_readout`` that name the task."""
    if not isinstance(config, Mapping):
        return []
    if not task:
        return [config.get("readout")]
    several = config.get("multitask_readout")
    return [
        readout
        for readout in (several if isinstance(several, (list, tuple)) else ())
        if isinstance(readout, Mapping) and readout.get("readout_id") == task
    ]
