"""Does the exported core say what the checkpoint's own model says? Line by line, with tolerance."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from functools import cached_property

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
model whose output hardly varies, or that amplifies rounding, can be matched no better, nor can one
that adds up thousands of spikes."""
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
    """The largest that a window of this kind was allowed."""
    ok: bool
    """Whether each window's error is at most what it was allowed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """All lines, and what the tolerance is from."""

    lines: tuple[ParityLine, ...]
    output_sd: float
    """Standard deviation of the model's output over windows and queries."""
    rounding: float
    """How far the model's own float32 output is from its float64 output."""
    tolerance: float
    """``max(TOLERANCE_SD * output_sd, TOLERANCE_ROUNDING * rounding)``. A window on which the
    model's own rounding is larger is allowed ``TOLERANCE_ROUNDING`` times that."""
    float64_times: float
    """How much the checkpoint's own model changes when it is given float64 times instead."""

    @property
    def max_abs_error(self) -> float:
        """The largest error of all lines, in the model's scale."""
        return max(line.max_abs_error for line in self.lines)

    @property
    def most_allowed(self) -> float:
        """The largest error that a line was allowed."""
        return max(line.tolerance for line in self.lines)

    def require(self) -> None:
        """Raise when a line failed.

        Raises:
            CheckFailedError: names the worst line.
        """
        failed = [line for line in self.lines if not line.ok]
        if not failed:
            return
        worst = max(failed, key=lambda line: line.max_abs_error)
        raise CheckFailedError(
            f"parity: expected an error of at most {worst.tolerance:.2e} "
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
    alone = [_run(backend, constants, [window])[0] for window in meter.over(windows)]
    errors = _errors(alone, expected, range(len(windows)))
    more = [reference.predict(window) for window in meter.over(extra)]
    output_sd = float(np.concatenate([*expected, *more]).std(0).mean())
    exact = dataclasses.replace(reference, model=in_float64(reference.model))
    rounding = _largest_difference(
        [exact.predict(windows[i]) for i in meter.over(few)], [expected[i] for i in few]
    )
    tolerance = max(TOLERANCE_SD * output_sd, TOLERANCE_ROUNDING * rounding)

    short = [i for i, window in enumerate(windows) if len(window.time) <= _MOST_TOGETHER]
    together = _errors(_run(backend, constants, [windows[i] for i in short]), expected, short)
    if not np.max(errors + together) <= tolerance:  # not for a rounding that few windows showed
        rounding = max(rounding, _largest_difference([exact.predict(w) for w in extra], more))
        tolerance = max(tolerance, TOLERANCE_ROUNDING * rounding)

    allowed = _Allowed(reference, windows, expected, tolerance)
    kinds: dict[tuple[str, int], list[int]] = {}
    for i, window in enumerate(windows):
        count = len(window.time) if window.kind == "synthetic" else -1
        kinds.setdefault((window.kind, count), []).append(i)
    lines = [
        allowed.line(kind, [errors[i] for i in which], which) for (kind, _), which in kinds.items()
    ]
    parity = Parity(
        lines=(*lines, allowed.line("padded batch", together, short)),
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
    reference: Reference,
    backend: Backend,
    constants: SessionConstants,
    windows: Sequence[Window],
    expected: Sequence[Float32],
    *,
    tell: Progress | None = None,
) -> Parity:
    """The parity of the core with lines for a graph made from it, held to the same tolerance."""
    short = [i for i, window in enumerate(windows) if len(window.time) <= _MOST_TOGETHER]
    together = _run(backend, constants, [windows[i] for i in short])
    meter = Meter(tell, len(windows))
    alone = [_run(backend, constants, [window])[0] for window in meter.over(windows)]
    allowed = _Allowed(reference, windows, expected, parity.tolerance)
    name, whole = f"{backend.name} graph", range(len(windows))
    lines = (
        allowed.line(name, _errors(alone, expected, whole), whole),
        allowed.line(f"{name}, padded batch", _errors(together, expected, short), short),
    )
    return dataclasses.replace(parity, lines=(*parity.lines, *lines))


class _Allowed:
    """What the error on a window may be.

    That is the tolerance, or more where the model's own float32 output is further from its float64
    output on that very window. The latter takes time, so only an error beyond the tolerance asks.
    """

    def __init__(
        self,
        reference: Reference,
        windows: Sequence[Window],
        expected: Sequence[Float32],
        tolerance: float,
    ) -> None:
        self._reference, self._windows, self._expected = reference, windows, expected
        self._tolerance = tolerance

    def line(self, kind: str, errors: Sequence[float], which: Sequence[int]) -> ParityLine:
        """Of the errors on these windows, by their rows."""
        allowed = [
            self._of(i) if not error <= self._tolerance else self._tolerance
            for error, i in zip(errors, which, strict=True)
        ]
        return ParityLine(
            kind=kind,
            n_spikes=max(len(self._windows[i].time) for i in which),
            n_windows=len(which),
            max_abs_error=float(np.max(errors)),
            tolerance=max(allowed),
            ok=all(error <= most for error, most in zip(errors, allowed, strict=True)),
        )

    def _of(self, i: int) -> float:
        own = _largest_difference([self._exact.predict(self._windows[i])], [self._expected[i]])
        return max(self._tolerance, TOLERANCE_ROUNDING * own)

    @cached_property
    def _exact(self) -> Reference:
        return dataclasses.replace(self._reference, model=in_float64(self._reference.model))


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


def _errors(
    found: Sequence[Float32] | Float32, expected: Sequence[Float32], which: Sequence[int]
) -> list[float]:
    """The largest of each window; ``which`` are the rows of the windows that were decoded."""
    return [float(np.abs(one - expected[i]).max()) for one, i in zip(found, which, strict=True)]


def _run(backend: Backend, constants: SessionConstants, windows: Sequence[Window]) -> Float32:
    return backend.run(feeds(constants, windows))
