"""The folded core against torch_brain's POYO, which is the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("torch_brain.models")

from helpers.models.graphs import signature  # noqa: E402
from helpers.models.oracle import make_oracle  # noqa: E402

from poyo_edge.artifact.core_weights import half_split_order  # noqa: E402
from poyo_edge.export.graph.core import IR_VERSION, OPSET, build_core  # noqa: E402
from poyo_edge.export.graph.fold import fold  # noqa: E402
from poyo_edge.runtime.backends import Backend, open_backend  # noqa: E402
from poyo_edge.runtime.constants import SessionConstants, session_constants  # noqa: E402
from poyo_edge.spec import POYO_1_3M, POYO_11_8M, ModelSpec  # noqa: E402
from poyo_edge.tokens import latent_tokens, window_tokens  # noqa: E402

SMALL = ModelSpec(
    dim=24,
    depth=1,
    dim_head=32,
    cross_heads=1,
    self_heads=3,
    latents_per_step=3,
    dim_out=3,
    rotating_pairs=8,
    window_s=0.6,
    latent_step_s=0.25,
)
"""Odd on purpose: a window that is no multiple of the step, one cross head, three outputs."""

# Size → largest error in standard deviations of the output; measured worst case beside it.
# torch_brain's own float32 output is as far from its float64 output on these random weights.
TOLERANCE_SD = {
    "small": 3e-5,  # 4.6e-6
    "1.3M": 3e-5,  # 1.1e-5
    "11.8M": 3e-5,  # 6.6e-6
}
SPECS = {"small": SMALL, "1.3M": POYO_1_3M, "11.8M": POYO_11_8M}
COUNTS = (0, 1, 7, 8, 9, 100, 1000, 8000)


class Pair:
    """torch_brain's model with random weights, and our core folded from its ``state_dict``."""

    def __init__(self, spec: ModelSpec, n_units: int, seed: int = 0) -> None:
        self.spec, self.n_units = spec, n_units
        self.oracle = make_oracle(spec, [f"s/{i}" for i in range(n_units)], ["s"], seed=seed)
        with torch.no_grad():
            for name, tensor in self.oracle.named_parameters():
                if "norm" in name:
                    tensor.add_(0.3 * torch.randn_like(tensor))
                if "to_" in name or name == "readout.weight":
                    tensor.mul_(2.0)  # sharp attention: windows must differ in what they say
        self.weights = {
            name: value.detach().numpy()
            for name, value in self.oracle.state_dict().items()
            if not name.endswith("vocab")
        }
        folded = fold(self.weights, spec)
        self.proto = build_core(folded)
        self.core: Backend = open_backend("ort-cpu", self.proto.SerializeToString())
        self.constants: SessionConstants = session_constants(
            spec,
            folded.session,
            self.weights["unit_emb.weight"][1:],
            self.weights["session_emb.weight"][1],
        )

    def window(self, n_spikes: int, seed: int = 0) -> tuple[Any, Any]:
        rng = np.random.default_rng(seed)
        time = rng.uniform(0, self.spec.window_s, n_spikes).astype(np.float32)
        return time, rng.integers(0, self.n_units, n_spikes).astype(np.int32)

    def expected(self, time: Any, unit: Any, query: Any) -> npt.NDArray[np.float32]:
        tokens = window_tokens(
            time.astype(np.float64), unit, self.n_units, self.spec.window_seconds
        )
        index, latent_time = latent_tokens(self.spec)
        with torch.inference_mode():
            out = self.oracle(
                input_unit_index=torch.from_numpy(tokens.unit + 1)[None],
                input_timestamps=torch.from_numpy(tokens.time).float()[None],
                input_token_type=torch.from_numpy(tokens.type)[None],
                latent_index=torch.from_numpy(index)[None],
                latent_timestamps=torch.from_numpy(latent_time).float()[None],
                session_index=torch.tensor([1]),
                output_timestamps=torch.from_numpy(query)[None],
            )
        return np.asarray(out[0].numpy())

    def feeds(self, time: Any, unit: Any, query: Any, mask: Any = None) -> dict[str, Any]:
        time, unit, query = np.atleast_2d(time), np.atleast_2d(unit), np.atleast_2d(query)
        return {
            "spike_time": time.astype(np.float32),
            "spike_unit": unit.astype(np.int32),
            "spike_mask": np.ones(time.shape, bool) if mask is None else mask,
            "query_time": query.astype(np.float32),
            **self.constants.feeds(),
        }

    def queries(self) -> npt.NDArray[np.float32]:
        return (np.array([0.0, 0.31, 1.0]) * self.spec.window_s).astype(np.float32)


@pytest.fixture(scope="module", params=["small", "1.3M", "11.8M"])
def sized(request: pytest.FixtureRequest) -> tuple[str, Pair]:
    return request.param, Pair(SPECS[request.param], n_units=40)


@pytest.fixture(scope="module")
def small() -> Pair:
    return Pair(SMALL, n_units=12)


def test_core_says_what_torch_brain_says_at_every_number_of_spikes(
    sized: tuple[str, Pair],
) -> None:
    name, pair = sized
    query = pair.queries()
    counts = COUNTS if name != "11.8M" else COUNTS[:-1]
    got, want = [], []
    for n_spikes in counts:
        time, unit = pair.window(n_spikes, seed=n_spikes)
        want.append(pair.expected(time, unit, query))
        got.append(pair.core.run(pair.feeds(time, unit, query))[0])
    # Each window differs little from the next: the spread over queries and windows is the scale.
    sd = np.concatenate(want).std(0).mean()
    assert sd > 0.05
    error = np.abs(np.stack(got) - np.stack(want)).max()
    assert error <= TOLERANCE_SD[name] * sd


def test_padding_in_a_batch_changes_nothing(small: Pair) -> None:
    counts = (0, 3, 50, 17)
    query = small.queries()
    time = np.full((len(counts), 50), 0.123, np.float32)
    unit = np.full((len(counts), 50), 5, np.int32)
    mask = np.zeros((len(counts), 50), bool)
    want = []
    for i, n_spikes in enumerate(counts):
        time[i, :n_spikes], unit[i, :n_spikes] = small.window(n_spikes, seed=i)
        mask[i, :n_spikes] = True
        want.append(small.expected(time[i, :n_spikes], unit[i, :n_spikes], query))
    got = small.core.run(small.feeds(time, unit, np.tile(query, (len(counts), 1)), mask))
    assert np.abs(got - np.stack(want)).max() < 2e-6


def test_a_wrong_mask_would_be_seen(small: Pair) -> None:
    time, unit = small.window(20)
    query = small.queries()
    mask = np.ones((1, 20), bool)
    mask[0, 3] = False
    whole = small.core.run(small.feeds(time, unit, query))
    assert np.abs(small.core.run(small.feeds(time, unit, query, mask)) - whole).max() > 1e-4


def test_any_number_of_queries_is_answered_alike(small: Pair) -> None:
    time, unit = small.window(30)
    many = np.linspace(0, small.spec.window_s, 7).astype(np.float32)
    together = small.core.run(small.feeds(time, unit, many))[0]
    for query, answer in zip(many, together, strict=True):
        alone = small.core.run(small.feeds(time, unit, np.array([query])))[0, 0]
        assert np.abs(alone - answer).max() < 1e-6


@pytest.mark.parametrize("n_units", [1, 2, 300])
def test_any_number_of_units_fits_one_core(n_units: int) -> None:
    pair = Pair(SMALL, n_units=n_units)
    time, unit = pair.window(60)
    query = pair.queries()
    error = np.abs(
        pair.core.run(pair.feeds(time, unit, query))[0] - pair.expected(time, unit, query)
    )
    assert error.max() < 2e-6


def test_graph_keeps_the_contract_of_its_inputs(small: Pair) -> None:
    heads, latents, dim_head = 1, SMALL.n_latents, SMALL.dim_head
    assert signature(small.proto.graph.input) == {
        "spike_unit": ("INT32", ["batch", "n_spikes"]),
        "spike_time": ("FLOAT", ["batch", "n_spikes"]),
        "spike_mask": ("BOOL", ["batch", "n_spikes"]),
        "unit_kv": ("FLOAT", ["n_units", 2 * heads * dim_head]),
        "boundary_lse": ("FLOAT", [heads, latents]),
        "boundary_value": ("FLOAT", [heads, latents, dim_head]),
        "session_query": ("FLOAT", [SMALL.dim]),
        "query_time": ("FLOAT", ["batch", "n_queries"]),
    }
    assert signature(small.proto.graph.output) == {
        "prediction": ("FLOAT", ["batch", "n_queries", 3])
    }


def test_graph_is_one_plain_file_that_old_runtimes_open(small: Pair) -> None:
    assert (small.proto.ir_version, IR_VERSION) == (8, 8)
    assert [(o.domain, o.version) for o in small.proto.opset_import] == [("", OPSET)]
    assert 18 <= OPSET <= 20
    assert not any(node.domain for node in small.proto.graph.node)
    assert not any(tensor.external_data for tensor in small.proto.graph.initializer)
    onnx.checker.check_model(small.proto, full_check=True)


def test_graph_names_its_nodes_uniquely_after_what_they_compute(small: Pair) -> None:
    names = [node.name for node in small.proto.graph.node]
    assert len(set(names)) == len(names)
    assert {"encoder.attention.score", "layer0.attention.score", "readout"} <= set(names)


def test_building_twice_gives_the_same_bytes() -> None:
    first, second = (Pair(SMALL, n_units=3).proto.SerializeToString() for _ in range(2))
    assert first == second


def test_half_split_order_puts_partners_of_a_pair_a_half_apart() -> None:
    order = half_split_order(np.array([3.0, 2.0, 0.0, 0.0]))
    assert order.tolist() == [0, 2, 1, 3, 4, 5, 6, 7]
