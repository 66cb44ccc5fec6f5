"""Does the exported core say what the checkpoint's own model says? Line by line, with tolerance."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from poyo_edge.arrays import Float32
from poyo_edge.errors import CheckFailedError
from poyo_edge.export.parity.meter import Meter, Progress
from poyo_edge.export.parity.windows import Window, feeds, synthetic_windows
from poyo_edge.model import POYO, RotaryTimeEmbedding
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.constants import SessionConstants
from poyo_edge.tokens import latent_tokens, window_tokens

TOLERANCE_SD = 1e-5
"""Largest error allowed, in standard deviations of the output."""
TOLERANCE_ROUNDING = 4.0
"""An error of this many times the model's own float32 rounding error is allowed in any case: a
model whose output hardly varies, or that amplifies rounding, can be matched no better."""
_MOST_SPIKES_IN_FLOAT64 = 1000
_MOST_TOGETHER = 1000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ParityLine(JsonRecord):
    """The largest error over the windows of one kind."""

    kind: str
    n_spikes: int
    n_windows: int
    max_abs_error: float
    tolerance: float
    ok: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """All lines, and what the tolerance is from."""

    lines: tuple[ParityLine, ...]
    output_sd: float
    """Standard deviation of the model's output over windows and queries."""
    rounding: float
    """How far the model's own float32 output is from its float64 output."""
    tolerance: float
    """``max(TOLERANCE_SD * output_sd, TOLERANCE_ROUNDING * rounding)``."""
    float64_times: float
    """How much the checkpoint's own model changes when it is given float64 times instead."""

    @property
    def max_abs_error(self) -> float:
        """The largest error of all lines, in the model's scale."""
        return max(line.max_abs_error for line in self.lines)

    def require(self) -> None:
        """Raise when a line failed.

        Raises:
            CheckFailedError: names the worst line.
        """
        if all(line.ok for line in self.lines):
            return
        worst = max(self.lines, key=lambda line: line.max_abs_error)
        raise CheckFailedError(
            f"parity: expected an error of at most {self.tolerance:.2e} "
            f"(output sd {self.output_sd:.3g}), got {worst.max_abs_error:.2e} "
            f"on {worst.kind} windows of {worst.n_spikes} spikes; no artifact was written: "
            f"please report this with the checkpoint's layout"
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """The checkpoint's own model, asked for one session.

    It computes in float32 throughout, times included, as the core does. torch_brain's datasets
    deliver float64 times; ``predict`` can be asked for those too, to see what they change.
    """

    model: POYO
    unit_rows: npt.NDArray[np.int64]
    """(U,) rows of the model's unit table."""
    session_row: int

    def predict(self, window: Window, times: torch.dtype = torch.float32) -> Float32:
        """(Q, O) float32 in the model's scale; ``times`` is the dtype of all times."""
        spec = self.model.spec

        def seconds(array: npt.NDArray[np.floating]) -> torch.Tensor:
            return torch.from_numpy(array).to(times)[None]

        tokens = window_tokens(
            window.time.astype(np.float64),
            window.unit.astype(np.int64),
            len(self.unit_rows),
            spec.window_seconds,
        )
        index, time = latent_tokens(spec)
        with torch.inference_mode():
            prediction = self.model(
                input_unit_index=torch.from_numpy(self.unit_rows[tokens.unit])[None],
                input_timestamps=seconds(tokens.time),
                input_token_type=torch.from_numpy(tokens.type)[None],
                latent_index=torch.from_numpy(index)[None],
                latent_timestamps=seconds(time),
                session_index=torch.tensor([self.session_row]),
                output_timestamps=seconds(window.query),
            )
        return np.asarray(prediction[0].numpy(), np.float32)


def compare(
    reference: Reference,
    backend: Backend,
    constants: SessionConstants,
    windows: Sequence[Window],
    *,
    tell: Progress | None = None,
) -> tuple[Parity, list[Float32]]:
    """Run every window through both, one by one and then all together with padding.

    Args:
        reference: the checkpoint's own model.
        backend: the core.
        constants: of the same session.
        windows: what both decode.
        tell: told how many windows are done.

    Returns:
        The parity, and the reference's prediction (Q, O) of each window.
    """
    extra = synthetic_windows(reference.model.spec, len(reference.unit_rows), [200] * 16, seed=1)
    few = [i for i, window in enumerate(windows) if len(window.time) <= _MOST_SPIKES_IN_FLOAT64]
    meter = Meter(tell, 3 * len(windows) + len(extra) + len(few))
    expected = [reference.predict(window) for window in meter.over(windows)]
    errors = [
        np.abs(_run(backend, constants, [window])[0] - want).max()
        for window, want in zip(meter.over(windows), expected, strict=True)
    ]
    more = [reference.predict(window) for window in meter.over(extra)]
    output_sd = float(np.concatenate([*expected, *more]).std(0).mean())
    exact = dataclasses.replace(reference, model=in_float64(reference.model))
    rounding = _largest_difference(
        [exact.predict(windows[i]) for i in meter.over(few)], [expected[i] for i in few]
    )
    tolerance = max(TOLERANCE_SD * output_sd, TOLERANCE_ROUNDING * rounding)

    short = [i for i, window in enumerate(windows) if len(window.time) <= _MOST_TOGETHER]
    together = _run(backend, constants, [windows[i] for i in short])
    padded = np.abs(together - np.stack([expected[i] for i in short])).max()
    if max(*errors, padded) > tolerance:  # not refused for a rounding that few windows showed
        rounding = max(rounding, _largest_difference([exact.predict(w) for w in extra], more))
        tolerance = max(tolerance, TOLERANCE_ROUNDING * rounding)

    groups: dict[tuple[str, int], list[float]] = {}
    for window, error in zip(windows, errors, strict=True):
        count = len(window.time) if window.kind == "synthetic" else -1
        groups.setdefault((window.kind, count), []).append(float(error))
    groups["padded batch", max(len(windows[i].time) for i in short)] = [float(padded)]
    lines = tuple(
        ParityLine(
            kind=kind,
            n_spikes=count if count >= 0 else max(len(w.time) for w in windows if w.kind == kind),
            n_windows=len(short) if kind == "padded batch" else len(values),
            max_abs_error=max(values),
            tolerance=tolerance,
            ok=bool(max(values) <= tolerance),
        )
        for (kind, count), values in groups.items()
    )
    parity = Parity(
        lines=lines,
        output_sd=output_sd,
        rounding=rounding,
        tolerance=tolerance,
        float64_times=_largest_difference(
            [reference.predict(window, torch.float64) for window in meter.over(windows)], expected
        ),
    )
    return parity, expected


def compare_variant(
    parity: Parity,
    backend: Backend,
    constants: SessionConstants,
    windows: Sequence[Window],
    expected: Sequence[Float32],
    *,
    tell: Progress | None = None,
) -> Parity:
    """The parity of the core with lines for a graph made from it, held to the same tolerance."""
    short = [i for i, window in enumerate(windows) if len(window.time) <= _MOST_TOGETHER]
    together = list(_run(backend, constants, [windows[i] for i in short]))
    meter = Meter(tell, len(windows))
    alone = [_run(backend, constants, [window])[0] for window in meter.over(windows)]
    found = {
        "": (_largest_difference(alone, expected), range(len(windows))),
        ", padded batch": (_largest_difference(together, [expected[i] for i in short]), short),
    }
    lines = tuple(
        ParityLine(
            kind=f"{backend.name} graph{how}",
            n_spikes=max(len(windows[i].time) for i in which),
            n_windows=len(which),
            max_abs_error=error,
            tolerance=parity.tolerance,
            ok=bool(error <= parity.tolerance),
        )
        for how, (error, which) in found.items()
    )
    return dataclasses.replace(parity, lines=(*parity.lines, *lines))


class Float32Angles(torch.nn.Module):
    """The rotary embedding of a float32 model, for use in its float64 copy."""

    def __init__(self, embedding: RotaryTimeEmbedding) -> None:
        super().__init__()
        self.omega = embedding.omega

    def forward(self, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(cos, sin)`` in float64 of angles that were multiplied in float32."""
        angle = (time[..., None] * self.omega).double()
        return angle.cos(), angle.sin()


def in_float64(model: POYO) -> POYO:
    """A copy that computes in float64, with the angles of float32."""
    double = copy.deepcopy(model).double()
    double.rotary_emb = Float32Angles(model.rotary_emb)  # type: ignore[assignment]
    return double


def _largest_difference(first: Sequence[Float32], second: Sequence[Float32]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def _run(backend: Backend, constants: SessionConstants, windows: Sequence[Window]) -> Float32:
    return backend.run(feeds(constants, windows))
