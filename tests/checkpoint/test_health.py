"""Dead layers and FP16 casualties are counted, and healthy ones are not."""

import numpy as np

from poyo_edge.checkpoint.weight_health import weight_health


def test_dead_degenerate_and_healthy_matrices_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    healthy = rng.normal(size=(16, 16))
    weights = {
        "dead.weight": healthy * 1e-7,
        "degenerate.weight": np.outer(healthy[0], healthy[1]),
        "healthy.weight": healthy,
        "unit_emb.weight": np.zeros((16, 16)),
        "norm.weight": np.zeros(16),
    }
    health = weight_health(weights)
    assert health.dead == ("dead.weight",)
    assert health.degenerate == ("degenerate.weight",)
    assert health.n_matrices == 3


def test_weights_that_fp16_cannot_hold_are_counted() -> None:
    weights = {"w": np.array([0.0, 1.0, 1e-9, 1e-6, 1e5, -1e6])}
    health = weight_health(weights)
    assert (health.fp16_zero, health.fp16_subnormal, health.fp16_inf) == (1, 1, 2)
