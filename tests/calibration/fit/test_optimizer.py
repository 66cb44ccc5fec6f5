"""AdamW in numpy against its formula and against torch; the learning rate's rise and fall."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.arrays import Float32
from poyo_edge.calibration.fit.optimizer import AdamW, cosine

SHAPES = {"units": (7, 5), "session": (5,), "bias": (1,)}
LIMIT = 3e-6  # 7.9e-7
"""Largest error relative to the largest entry; the measured worst case is beside it."""
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "clipping": {"clip_norm": 0.5},
    "both": {"weight_decay": 0.3, "clip_norm": 2.0},
}
LR = {"units": 0.03, "session": 0.005, "bias": 0.1}


def tables() -> dict[str, Float32]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def gradients(step: int) -> dict[str, Float32]:
    """Of very different sizes from step to step; some entries are 0."""
    rng = np.random.default_rng([1, step])
    size = 10.0 ** rng.uniform(-3, 1)
    return {
        name: (size * rng.standard_normal(shape) * (rng.random(shape) < 0.8)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def factor(step: int) -> float:
    return 1.0 / (1 + step % 4)


def stepped(variant: str, n_steps: int = 25) -> dict[str, Float32]:
    moved, optimizer = tables(), AdamW(**VARIANTS[variant])
    for step in range(n_steps):
        lr = {name: value * factor(step) for name, value in LR.items()}
        optimizer.step(moved, gradients(step), lr)
    assert optimizer.steps == n_steps
    return moved


def require_close(ours: dict[str, Float32], theirs: dict[str, npt.NDArray[np.float64]]) -> None:
    for name in SHAPES:
        worst = np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max()
        assert worst < LIMIT, f"{name}: {worst:.1e}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_are_those_of_torch(variant: str) -> None:
    torch = pytest.importorskip("torch", reason="the steps are compared with torch's")
    decay = VARIANTS[variant].get("weight_decay", 0.0)
    theirs = {name: torch.from_numpy(values).requires_grad_() for name, values in tables().items()}
    groups = [{"params": [theirs[name]], "lr": LR[name]} for name in SHAPES]
    optimizer = torch.optim.AdamW(groups, weight_decay=decay, betas=(0.9, 0.999), eps=1e-8)
    for step in range(25):
        for group, name in zip(optimizer.param_groups, SHAPES, strict=True):
            group["lr"] = LR[name] * factor(step)
            theirs[name].grad = torch.from_numpy(gradients(step)[name])
        if "clip_norm" in VARIANTS[variant]:
            norm = VARIANTS[variant]["clip_norm"]
            torch.nn.utils.clip_grad_norm_(list(theirs.values()), norm)
        optimizer.step()
    require_close(
        stepped(variant),
        {name: table.detach().numpy().astype(np.float64) for name, table in theirs.items()},
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_follow_the_formula(variant: str) -> None:
    """Algorithm 2 of Loshchilov and Hutter, entry by entry in float64."""
    decay = VARIANTS[variant].get("weight_decay", 0.0)
    clip = VARIANTS[variant].get("clip_norm", math.inf)
    values = {name: table.astype(np.float64) for name, table in tables().items()}
    m = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    v = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for t in range(1, 26):
        raw = {name: g.astype(np.float64) for name, g in gradients(t - 1).items()}
        norm = math.sqrt(sum((g**2).sum() for g in raw.values()))
        for name, gradient in raw.items():
            g = gradient * min(1.0, clip / norm)
            lr = LR[name] * factor(t - 1)
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            step = (m[name] / (1 - 0.9**t)) / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8)
            values[name] -= lr * decay * values[name] + lr * step
    require_close(stepped(variant), values)


def test_the_first_step_is_the_learning_rate_whatever_the_gradient() -> None:
    for size in (1e-3, 1.0, 1e3):
        table = {"x": np.zeros(3, np.float32)}
        AdamW().step(table, {"x": np.float32(size) * np.array([1, -1, 2], np.float32)}, {"x": 0.1})
        assert table["x"] == pytest.approx([-0.1, 0.1, -0.1], rel=1e-4)


def test_gradients_are_clipped_by_the_norm_of_all_tables() -> None:
    """Clipping one table alone would not see that the other one is large."""
    gradient = {"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float32)}
    optimizer = AdamW(clip_norm=1.0)
    optimizer.step({n: np.zeros(1, np.float32) for n in "ab"}, gradient, {"a": 0.1, "b": 0.1})
    assert optimizer.mean["a"][0] == pytest.approx(0.1 * 3.0 / 5.0)
    assert optimizer.mean["b"][0] == pytest.approx(0.1 * 4.0 / 5.0)
    small = AdamW(clip_norm=6.0)
    small.step({n: np.zeros(1, np.float32) for n in "ab"}, gradient, {"a": 0.1, "b": 0.1})
    assert small.mean["b"][0] == pytest.approx(0.4), "what is within the bound stays"


def test_without_a_gradient_only_decay_moves() -> None:
    table = {"x": np.array([2.0, -4.0], np.float32)}
    zero = {"x": np.zeros(2, np.float32)}
    optimizer = AdamW(clip_norm=1.0)
    optimizer.step(table, zero, {"x": 0.1})
    assert table["x"].tolist() == [2.0, -4.0]
    AdamW(weight_decay=0.5).step(table, zero, {"x": 0.1})
    assert table["x"] == pytest.approx([1.9, -3.8])


def test_tables_move_in_place_and_stay_float32() -> None:
    moved = tables()
    before = dict(moved)
    AdamW().step(moved, gradients(0), LR)
    for name, table in moved.items():
        assert table is before[name]
        assert table.dtype == np.float32
        assert not np.array_equal(table, tables()[name])


def test_the_learning_rate_rises_then_falls_to_nearly_none() -> None:
    factors = [cosine(step, 40, warmup=5) for step in range(40)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5] == 1.0
    assert (np.diff(factors[5:]) < 0).all()
    assert 0 < factors[-1] < 0.01
    # The middle of what is left after the warm-up is at 22.5.
    assert (cosine(22, 40, warmup=5) + cosine(23, 40, warmup=5)) / 2 == pytest.approx(0.5)


def test_the_learning_rate_at_its_edges() -> None:
    assert cosine(0, 10) == 1.0, "without a warm-up it begins at the peak"
    assert cosine(0, 1) == 1.0
    assert cosine(0, 1, warmup=1) == 1.0
    assert cosine(2, 3, warmup=5) == pytest.approx(0.6), "a warm-up longer than the schedule"
    assert cosine(10, 10) == pytest.approx(0.0, abs=1e-12)
    assert cosine(99, 10) == pytest.approx(0.0, abs=1e-12), "behind the end it stays there"
    assert cosine(10, 10, last=0.25) == pytest.approx(0.25)
    assert cosine(0, 10, last=0.25) == 1.0
    assert cosine(5, 10, last=0.25) == pytest.approx(0.625)
    assert cosine(5, 5, warmup=5) == 1.0
