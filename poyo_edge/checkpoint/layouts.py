"""The layouts of checkpoints, one table: who wrote each, and what a file of it is recognised by.

A layout is added by its row here and, where its keys need other names, by a file of its own that
the row loads; docs/checkpoints.md lists what the rows say. The first row that fits a file names
it, so that rows which would take any file stand last.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from poyo_edge.checkpoint.keys import TASK_TABLE, model_section, scaled_readouts
from poyo_edge.tables import Row


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a layout is recognised by, plain values."""

    keys: Collection[str]
    """Of the ``state_dict``, without prefixes."""
    container: str = ""
    """What the file keeps its weights in; "" where the keys alone are looked at."""
    hyper: Mapping[str, Any] | None = None
    """The hyper-parameters, empty for a file without; None where they are not looked at."""


Mark = Callable[[Evidence], str]
"""By what a file is recognised, in words that follow "by"; "" when it is of another layout."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout(Row):
    """One layout; its name is its key in the table."""

    mark: Mark
    load: str = ""
    """``MODULE:NAME`` of ``(path, state) → state`` that gives the keys the names that they have
    today; "" where they have them."""
    refused: str = ""
    """Of a layout that cannot be exported: what it is, in words that follow "got"."""
    do: str = ""
    """What helps whoever has such a file."""
    around: bool = False
    """Whether it goes around the keys of another layout, which are then recognised too."""
    counts_tasks: bool = True
    """Whether its writer numbers tasks in the order of their readouts, as torch_brain does."""


class Recognised(NamedTuple):
    """A row that fits a file, and by what."""

    name: str
    layout: Layout
    because: str


def recognise(file: Evidence) -> list[Recognised]:
    """The layout of a file; behind one that goes around others, what its keys are recognised as,
    where they are of a layout of their own."""
    first = next(_fitting(file))
    if not first.layout.around:
        return [first]
    return [first, *islice(_fitting(Evidence(keys=file.keys)), 1)]


def what_is_read() -> str:
    """What can be exported, for messages: letters alone, without what goes around them."""
    runs: list[str] = []
    for letter in sorted({n[0] for n, row in LAYOUTS.items() if not (row.refused or row.around)}):
        if runs and ord(letter) == ord(runs[-1][-1]) + 1:
            runs[-1] += letter
        else:
            runs.append(letter)
    letters = ", ".join(run if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
    return f"a POYO or POYO+ (layouts {letters})"


def checkpoint_help() -> str:
    """What ``--help`` says of a checkpoint that is to be exported: every layout by its name."""
    *names, last = sorted(name for name, row in LAYOUTS.items() if not row.refused)
    return f"A checkpoint of a POYO or POYO+, layout {', '.join(names)} or {last}."


def _fitting(file: Evidence) -> Iterator[Recognised]:
    for name, layout in LAYOUTS.items():
        if because := layout.mark(file):
            yield Recognised(name, layout, because)


def _key(pattern: str) -> Mark:
    """A key in which the pattern is found."""
    found = re.compile(pattern).search
    return lambda file: next((f"the key {key!r}" for key in file.keys if found(key)), "")


def _model_state_dict(file: Evidence) -> str:
    return "the key 'model_state_dict'" if file.container == "model_state_dict" else ""


def _before_0_1(file: Evidence) -> str:
    hyper = file.hyper or {}
    model = model_section(hyper)
    if "num_latents" in model:
        return "'num_latents' in hyper_parameters['model']"
    if "sequence_length" in hyper and "sequence_length" not in model:
        return "'sequence_length' beside hyper_parameters['model']"
    return ""


def _output_scale(file: Evidence) -> str:
    stated = scaled_readouts(file.hyper or {})
    return "the output scale in hyper_parameters['dataset']" if stated else ""


def _hyper_parameters(file: Evidence) -> str:
    return "hyper-parameters without an output scale" if file.hyper else ""


def _no_hyper_parameters(file: Evidence) -> str:
    without = file.hyper is not None and not file.hyper
    return "the lack of hyper-parameters" if without else ""


LAYOUTS: Mapping[str, Layout] = {
    "LoRA": Layout(
        help="adapters beside the weights of a POYO, which they change",
        mark=_key(r"(?i)(?:^|\.)(?:(?:\w+_)?lora|(?:to_\w+|net\.\d)\.[AB](?:\.weight)?$)"),
        refused="a LoRA checkpoint whose adapters are not merged into the weights",
        do="merge them where the model is (weight + scale · B · A), and save the state dict again",
    ),
    "E": Layout(
        help="POSSM",
        mark=_key(r"(?i)(?:^|\.)backbone\."),
        refused="layout E (POSSM, a recurrent model)",
        do="recurrent models are not supported yet; pass a POYO checkpoint",
    ),
    "D": Layout(
        help="CaPOYO",
        mark=_key(r"(?i)(?:^|\.)input_value_map\b"),
        refused="layout D (CaPOYO, calcium traces instead of spikes)",
        do="there are no spikes to stream into it; pass a POYO checkpoint",
    ),
    "F": Layout(
        help="the ibl-bwb trainers: model_state_dict beside an OmegaConf configuration",
        mark=_model_state_dict,
        around=True,
        counts_tasks=False,
    ),
    "A1": Layout(
        help="2024: keys under perceiver_io., frequencies as inv_freq, the model itself pickled "
        "among the hyper-parameters",
        mark=_key(r"^perceiver_io\.rotary_emb\.inv_freq$"),
        load="poyo_edge.checkpoint.renaming.perceiver_io:renamed",
    ),
    "A2": Layout(
        help="2024: the same with frequencies as omega",
        mark=_key(r"^perceiver_io\."),
        load="poyo_edge.checkpoint.renaming.perceiver_io:renamed",
    ),
    "C": Layout(
        help="POYO+: several tasks, each with its readout",
        mark=_key(f"^{re.escape(TASK_TABLE)}$"),
    ),
    "B0": Layout(
        help="torch_brain before 0.1.0, Lightning; the configuration can contradict the weights",
        mark=_before_0_1,
    ),
    "B1": Layout(
        help="torch_brain 0.1.0, Lightning, with the scale of the output", mark=_output_scale
    ),
    "B2": Layout(
        help="torch_brain 0.1.1 and later, Lightning, without that scale", mark=_hyper_parameters
    ),
    "B3": Layout(
        help="torch.save(model.state_dict(), PATH), and what else has no hyper-parameters",
        mark=_no_hyper_parameters,
    ),
}
"""Layout by its name."""
