"""What the hyper-parameters beside the weights say: time window, output scale.

They are plain values that other programs wrote, in several arrangements and not always true:
every value is looked up, checked and, where the tensors contradict it, overruled with a note.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poyo_edge.checkpoint.keys import model_section, scaled_readouts
from poyo_edge.errors import CheckpointError, UsageError
from poyo_edge.spec import ModelSpec, OutputScale

DEFAULT_SEQUENCE_LENGTH_S = 1.0
DEFAULT_LATENT_STEP_S = 0.125
_MAX_LATENT_STEPS = 65536

_SIZES = {
    "dim": "dim",
    "depth": "depth",
    "dim_head": "dim_head",
    "cross_heads": "cross_heads",
    "self_heads": "self_heads",
    "num_latents_per_step": "latents_per_step",
    "num_latents": "latents_per_step",
    "dim_out": "dim_out",
}


def contradictions(hyper: Mapping[str, Any], spec: ModelSpec) -> list[str]:
    """One sentence for each size that the hyper-parameters state and the tensors refute."""
    model = model_section(hyper)
    return [
        f"hyper_parameters['model'] says {name}={model[name]!r}, the tensors say "
        f"{getattr(spec, field)}; the tensors won."
        for name, field in _SIZES.items()
        if name in model and not _is_number(model[name], getattr(spec, field))
    ]


def time_window(
    path: Path,
    hyper: Mapping[str, Any],
    sequence_length: float | None,
    latent_step: float | None,
    notes: list[str],
) -> tuple[float, float]:
    """``(window_s, latent_step_s)``: arguments, else the file, else 1.0 and 0.125.

    Raises:
        CheckpointError: a stated time is no number > 0, or the two make no grid of latents.
    """
    window_s = _seconds(
        path, hyper, "sequence_length", sequence_length, DEFAULT_SEQUENCE_LENGTH_S, notes
    )
    step_s = _seconds(path, hyper, "latent_step", latent_step, DEFAULT_LATENT_STEP_S, notes)
    # Checked before the grid of latents is counted: a hostile pair would fill the memory.
    if not 1 <= window_s / step_s <= _MAX_LATENT_STEPS:
        raise CheckpointError(
            path,
            "latent_step",
            expected=f"1 to {_MAX_LATENT_STEPS} steps in a window of {window_s:g} s",
            got=f"steps of {step_s:g} s",
            do="pass sequence_length and latent_step (seconds)",
        )
    return window_s, step_s


def is_seconds(value: object) -> bool:
    """Whether a value is a finite number > 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value > 0


def output_of(
    path: Path,
    hyper: Mapping[str, Any],
    argument: float | Sequence[float] | None,
    dim_out: int,
    notes: list[str],
    task: str = "",
) -> OutputScale:
    """From the model's scale to behaviour: the argument, else what all datasets agree on. Of
    a POYO+ what they say of the task.

    Raises:
        CheckpointError: the file's scale is no usable number, or does not fit the outputs.
        UsageError: the same of the argument.
    """
    if argument is not None:
        return _argument_scale(path, hyper, argument, dim_out, notes, task)
    stated = _stated_scales(path, hyper, dim_out, task)
    if not stated:
        notes.append(
            "The file holds no output scale, so values stay in the model's scale; "
            "--output-scale sets it."
        )
        return OutputScale()
    if len({(one.scale, one.offset) for one in stated}) > 1:
        seen = " and ".join(sorted({_said(one) for one in stated}))
        notes.append(
            f"The file's datasets were scaled differently ({seen}), so values stay in the "
            "model's scale; --output-scale sets it."
        )
        return OutputScale()
    notes.append(f"Output scale {list(stated[0].scale)} comes from the file's readout.")
    units = sorted({one.unit for one in stated})
    if len(units) > 1:
        notes.append(f"The file's datasets name different units ({units}), so none is taken.")
        return dataclasses.replace(stated[0], unit="")
    return stated[0]


def _said(scale: OutputScale) -> str:
    offset = "" if not any(scale.offset) else f" with offset {list(scale.offset)}"
    return f"{list(scale.scale)}{offset}"


def _argument_scale(
    path: Path,
    hyper: Mapping[str, Any],
    argument: float | Sequence[float],
    dim_out: int,
    notes: list[str],
    task: str,
) -> OutputScale:
    scale = OutputScale(scale=_numbers(argument))
    scale.arrays(dim_out)
    notes.append(f"Output scale {list(scale.scale)} was set by the argument.")
    try:
        stated = _stated_scales(path, hyper, dim_out, task)
    except CheckpointError:
        return scale
    if any(other.scale != scale.scale for other in stated):
        seen = " and ".join(sorted({str(list(other.scale)) for other in stated}))
        notes.append(f"The file says output scale {seen}; the argument won.")
    offsets = {other.offset for other in stated}
    return OutputScale(scale=scale.scale, offset=offsets.pop()) if len(offsets) == 1 else scale


def _stated_scales(
    path: Path, hyper: Mapping[str, Any], dim_out: int, task: str
) -> list[OutputScale]:
    return [_scale_of_readout(path, readout, dim_out) for readout in scaled_readouts(hyper, task)]


def _scale_of_readout(path: Path, readout: Mapping[str, Any], dim_out: int) -> OutputScale:
    std, mean = readout.get("normalize_std"), readout.get("normalize_mean")
    try:
        output = readout_scale(readout)
        output.arrays(dim_out)
    except (TypeError, ValueError, UsageError) as error:
        raise CheckpointError(
            path,
            "normalize_std, normalize_mean",
            expected=f"1 or {dim_out} finite numbers each, normalize_std other than 0",
            got=f"{std!r} and {mean!r} ({error})",
            do="pass output_scale (--output-scale)",
        ) from None
    return output


def readout_scale(readout: Mapping[str, Any]) -> OutputScale:
    """What a readout says of its scale: a mean without a standard deviation is an offset alone.

    Raises:
        TypeError, UsageError: it holds something other than finite numbers.
    """
    std, mean = readout.get("normalize_std"), readout.get("normalize_mean")
    unit = readout.get("unit")
    return OutputScale(
        scale=_numbers(1.0 if std is None else std),
        offset=_numbers(0.0 if mean is None else mean),
        unit=unit if isinstance(unit, str) else "",
    )


def _seconds(
    path: Path,
    hyper: Mapping[str, Any],
    name: str,
    argument: float | None,
    default: float,
    notes: list[str],
) -> float:
    value = model_section(hyper).get(name, hyper.get(name))
    if argument is not None:
        if value is not None and not _is_number(value, argument):
            notes.append(f"The file says {name}={value!r}; the argument {argument!r} won.")
        return float(argument)
    if value is None:
        notes.append(f"The file holds no {name}; the default of {default:g} s was assumed.")
        return default
    if not is_seconds(value):
        do = f"pass {name} (seconds)"
        raise CheckpointError(path, name, expected="seconds > 0", got=repr(value), do=do)
    return float(value)


def _is_number(value: object, number: float) -> bool:
    return isinstance(value, (int, float)) and value == number


def _numbers(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)
