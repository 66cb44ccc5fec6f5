"""A graph is held to what its model's own float32 can say, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from helpers.models.cores import SMALL  # noqa: E402

from poyo_edge.arrays import Float32  # noqa: E402
from poyo_edge.errors import CheckFailedError  # noqa: E402
from poyo_edge.export.parity import core  # noqa: E402
from poyo_edge.export.parity.core import Parity, Reference, compare, compare_variant  # noqa: E402
from poyo_edge.export.parity.windows import Window, synthetic_windows  # noqa: E402
from poyo_edge.model import POYO  # noqa: E402

FEW, MANY = 9, 2000
LOST = 1e-3
"""What the model loses to rounding on the window of many spikes; its tolerance is less."""


class Rounding(Reference):
    """Exact but for its float32 on the window of many spikes."""

    def predict(self, window: Window, times: Any = torch.float32) -> Float32:
        exact = super().predict(window, times)
        rounds = self.model.unit_emb.weight.dtype == torch.float32 and len(window.time) == MANY
        return exact + np.float32(LOST) if rounds else exact


class Graph:
    """Says what the model says in float64, but for what is added on windows of so many spikes."""

    name = "ort-native"

    def __init__(self, added: dict[int, float]) -> None:
        self.added = added


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(0)
    model = POYO(SMALL, [f"unit_{i}" for i in range(8)], ["day"], emb_init_std=1.0).eval()
    return Rounding(model=model, unit_rows=np.arange(8), session_row=0)


@pytest.fixture
def held(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> Any:
    windows = synthetic_windows(SMALL, 8, [0, 1, FEW, MANY])
    exact = Reference(model=core.in_float64(reference.model), unit_rows=np.arange(8), session_row=0)

    def run(graph: Graph, _: object, those: Sequence[Window]) -> Float32:
        found = [exact.predict(w) + graph.added.get(len(w.time), 0.0) for w in those]
        return np.stack(found).astype(np.float32)

    monkeypatch.setattr(core, "_run", run)

    def compared(added: dict[int, float]) -> tuple[Parity, Parity]:
        constants: Any = None
        graph, good_one = cast("Any", Graph(added)), cast("Any", Graph({}))
        plain, expected = compare(reference, graph, constants, windows)
        good, _ = compare(reference, good_one, constants, windows)
        variant = compare_variant(good, reference, graph, constants, windows, expected)
        return plain, variant

    return compared


def test_what_the_model_loses_to_rounding_is_not_held_against_its_graphs(held: Any) -> None:
    for parity in held({}):
        parity.require()
        assert parity.tolerance < LOST / 5, "or the test says nothing"
        assert parity.tolerance < parity.max_abs_error <= parity.most_allowed
        allowed = {line.n_spikes: line.tolerance for line in parity.lines[:4]}
        assert allowed[FEW] == parity.tolerance, "of that window alone"
        assert allowed[MANY] == pytest.approx(core.TOLERANCE_ROUNDING * LOST, rel=0.01)


@pytest.mark.parametrize(("spikes", "error"), [(FEW, LOST), (MANY, 10 * LOST), (MANY, np.nan)])
def test_a_graph_that_is_wrong_is_refused(held: Any, spikes: int, error: float) -> None:
    for parity in held({spikes: error}):
        with pytest.raises(CheckFailedError, match=r"parity: expected an error of at most"):
            parity.require()
