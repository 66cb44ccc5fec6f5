"""The plain torch model and the numpy tokens against torch_brain's own ``POYO``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

torch_brain_models = pytest.importorskip("torch_brain.models", reason="torch_brain is the oracle")

import torch  # noqa: E402
from helpers.models.oracle import make_oracle  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from poyo_edge.errors import UsageError  # noqa: E402
from poyo_edge.model import POYO, RotaryTimeEmbedding, VocabEmbedding, rotate, rotate_complex  # noqa: E402
from poyo_edge.spec import POYO_1_3M, POYO_11_8M, ModelSpec  # noqa: E402
from poyo_edge.tokens import TOKEN_SPIKE, latent_tokens, window_tokens  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ModelSpec(
    dim=32, depth=2, dim_head=16, cross_heads=2, self_heads=3, latents_per_step=4, dim_out=3,
    rotating_pairs=4, latent_step_s=0.25,
)  # fmt: skip
SPECS = {"small": SMALL, "1.3M": POYO_1_3M, "11.8M": POYO_11_8M}

N_UNITS = 12
UNIT_IDS = [f"monkey/day{i % 2}/unit{i}" for i in range(N_UNITS)]
SESSION_IDS = ["monkey/day0", "monkey/day1"]


class Limit(NamedTuple):
    """Largest |ours - torch_brain's| that passes, relative to the reference's sd."""

    limit: float
    measured: float
    """Worst case seen (torch 2.13, x86 CPU, one thread)."""


FORWARD = {
    "small": Limit(5e-6, 8.8e-7),
    "1.3M": Limit(5e-6, 1.2e-6),
    "11.8M": Limit(5e-6, 1.5e-6),
}
GRADIENT = {"small": Limit(4e-5, 4.3e-6), "1.3M": Limit(4e-5, 7.5e-6)}


def make_pair(spec: ModelSpec, seed: int = 0) -> tuple[POYO, Any]:
    """Our model and torch_brain's with the same weights."""
    oracle = make_oracle(spec, UNIT_IDS, SESSION_IDS, seed=seed)
    ours = POYO(spec, UNIT_IDS, SESSION_IDS).eval()
    ours.load_state_dict(oracle.state_dict())
    return ours, oracle


def make_inputs(
    spec: ModelSpec,
    *,
    batch: int = 2,
    n_spikes: int = 60,
    n_padding: int = 0,
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
) -> dict[str, Tensor]:
    """Windows of random spikes; the last ``n_padding`` tokens of each odd window are masked."""
    rng = np.random.default_rng(seed)
    windows = [
        window_tokens(
            np.sort(rng.uniform(0, spec.window_s, n_spikes)),
            rng.integers(0, N_UNITS, n_spikes),
            N_UNITS,
            spec.window_s,
        )
        for _ in range(batch)
    ]
    index, time = latent_tokens(spec)
    inputs = {
        "input_unit_index": torch.from_numpy(np.stack([w.unit + 1 for w in windows])),
        "input_timestamps": torch.from_numpy(np.stack([w.time for w in windows])).to(dtype),
        "input_token_type": torch.from_numpy(np.stack([w.type for w in windows])),
        "latent_index": torch.from_numpy(index).expand(batch, -1),
        "latent_timestamps": torch.from_numpy(time).to(dtype).expand(batch, -1),
        "session_index": torch.arange(batch) % len(SESSION_IDS) + 1,
        "output_timestamps": torch.from_numpy(rng.uniform(0, spec.window_s, (batch, 7))).to(dtype),
    }
    if n_padding:
        mask = torch.ones_like(inputs["input_unit_index"], dtype=torch.bool)
        mask[1::2, -n_padding:] = False
        inputs["input_mask"] = mask
    return inputs


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Largest absolute difference over the standard deviation of the reference."""
    return ((ours - reference).abs().max() / reference.std()).item()


CASES: dict[str, dict[str, Any]] = {
    "one window": {"batch": 1},
    "three windows": {"batch": 3},
    "padded": {"batch": 4, "n_padding": 25},
    "no spikes": {"n_spikes": 0},
    "many spikes": {"batch": 1, "n_spikes": 1500},
    "float64 times": {"dtype": torch.float64},
    "padded, float64 times": {"n_padding": 25, "dtype": torch.float64},
}


@pytest.mark.parametrize("size", SPECS)
@pytest.mark.parametrize("case", CASES)
def test_predictions_equal_torch_brains(size: str, case: str) -> None:
    spec = SPECS[size]
    ours, oracle = make_pair(spec)
    inputs = make_inputs(spec, **CASES[case])
    with torch.no_grad():
        reference = oracle(**inputs)
        prediction = ours(**inputs)
    assert prediction.dtype == torch.float32
    assert prediction.shape == reference.shape
    assert reference.std() > 0.05
    assert relative_error(prediction, reference) <= FORWARD[size].limit


def test_parity_check_sees_a_small_change_of_one_weight() -> None:
    ours, oracle = make_pair(SMALL)
    inputs = make_inputs(SMALL)
    with torch.no_grad():
        ours.enc_atn.to_kv.weight[0, 0] += 1e-2
        error = relative_error(ours(**inputs), oracle(**inputs))
    assert error > FORWARD["small"].limit


@pytest.mark.parametrize("size", GRADIENT)
def test_gradients_of_all_parameters_equal_torch_brains(size: str) -> None:
    spec = SPECS[size]
    ours, oracle = make_pair(spec)
    inputs = make_inputs(spec, batch=4, n_padding=25)
    torch.manual_seed(3)
    target = torch.randn(4, 7, spec.dim_out)
    reference = gradients(oracle, inputs, target)
    measured = gradients(ours, inputs, target)
    assert set(measured) == set(reference)
    for name, gradient in measured.items():
        assert gradient.abs().max() > 0, name
        assert relative_error(gradient, reference[name]) <= GRADIENT[size].limit, name


def gradients(model: nn.Module, inputs: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    """Gradient of the mean squared error with respect to each parameter."""
    named = dict(model.named_parameters())
    loss = nn.functional.mse_loss(model(**inputs), target)
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize("size", SPECS)
def test_keys_and_shapes_equal_torch_brains(size: str) -> None:
    ours = POYO(SPECS[size], UNIT_IDS, SESSION_IDS).state_dict()
    theirs = make_oracle(SPECS[size], UNIT_IDS, SESSION_IDS).state_dict()
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        if key.endswith(".vocab"):
            assert ours[key] == value
        else:
            assert ours[key].shape == value.shape, key
            assert ours[key].dtype == value.dtype, key


def test_our_weights_load_in_torch_brain_and_come_back() -> None:
    ours = POYO(SMALL, UNIT_IDS, SESSION_IDS)
    fresh = torch_brain_models.POYO(
        sequence_length=1.0, latent_step=0.25, num_latents_per_step=4, dim_out=3,
        dim=32, depth=2, dim_head=16, cross_heads=2, self_heads=3,
    )  # fmt: skip
    fresh.load_state_dict(ours.state_dict())
    assert fresh.unit_emb.tokenizer(UNIT_IDS) == ours.unit_emb.rows(UNIT_IDS)
    again = POYO(SMALL, UNIT_IDS, SESSION_IDS)
    again.load_state_dict(fresh.state_dict())
    for key, value in ours.state_dict().items():
        back = again.state_dict()[key]
        assert torch.equal(back, value) if isinstance(value, Tensor) else back == value, key


def test_a_torch_brain_model_with_a_vocabulary_takes_our_weights() -> None:
    ours = POYO(SMALL, UNIT_IDS, SESSION_IDS)
    oracle = make_oracle(SMALL, UNIT_IDS, SESSION_IDS)
    state = ours.state_dict()
    oracle.load_state_dict(state)
    assert torch.equal(oracle.unit_emb.weight, ours.unit_emb.weight)
    assert ours.unit_emb.rows(UNIT_IDS) == list(range(1, N_UNITS + 1))


def test_loading_leaves_the_given_state_dict_as_it_was() -> None:
    state = make_oracle(SMALL, UNIT_IDS, SESSION_IDS).state_dict()
    keys, words = list(state), dict(state["unit_emb.vocab"])
    for _ in range(2):
        POYO(SMALL, UNIT_IDS, SESSION_IDS).load_state_dict(state)
    assert list(state) == keys
    assert state["unit_emb.vocab"] == words


def test_loading_refuses_another_vocabulary() -> None:
    state = make_oracle(SMALL, UNIT_IDS, SESSION_IDS).state_dict()
    with pytest.raises(RuntimeError, match=r"unit_emb\.vocab: the names or their rows differ"):
        POYO(SMALL, reversed(UNIT_IDS), SESSION_IDS).load_state_dict(state)


@pytest.mark.parametrize(("size", "count"), [("1.3M", 1_254_018), ("11.8M", 11_717_378)])
def test_parameter_counts_without_the_two_tables(size: str, count: int) -> None:
    model = POYO(SPECS[size], UNIT_IDS, SESSION_IDS)
    tables = ("unit_emb.", "session_emb.")
    named = model.named_parameters()
    assert sum(p.numel() for name, p in named if not name.startswith(tables)) == count


def test_training_mode_drops_out_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    ours, _ = make_pair(SMALL)
    ours.train()
    inputs = make_inputs(SMALL)
    first, second = ours(**inputs), ours(**inputs)
    assert torch.isfinite(first).all()
    assert not torch.equal(first, second)
    found = gradients(ours, inputs, torch.zeros_like(first))
    assert all(gradient.abs().max() > 0 for gradient in found.values())


def test_complex_products_turn_as_rotations_do() -> None:
    torch.manual_seed(0)
    x, angle = torch.randn(2, 3, 5, 12), torch.randn(2, 5, 4)
    expected = rotate(x, angle.cos(), angle.sin())
    got = rotate_complex(x, angle.cos(), angle.sin())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert torch.equal(got[..., 8:], x[..., 8:]) and not torch.equal(got[..., :8], x[..., :8])


WHILE_TRAINING = {
    **CASES,
    "gaps in the mask": {"batch": 4, "n_padding": 25},
}


@pytest.mark.parametrize("case", WHILE_TRAINING)
def test_keys_and_values_once_for_each_kind_of_token_change_nothing(case: str) -> None:
    _, oracle = make_pair(SMALL)
    dropouts = {"ffn_dropout": 0.0, "lin_dropout": 0.0, "atn_dropout": 0.0}
    ours = POYO(SMALL, UNIT_IDS, SESSION_IDS, **dropouts).train()
    ours.load_state_dict(oracle.state_dict())
    inputs = make_inputs(SMALL, **WHILE_TRAINING[case])
    if case == "gaps in the mask":
        inputs["input_mask"] = inputs["input_mask"].flip(1)
    torch.manual_seed(3)
    target = torch.randn(len(inputs["session_index"]), 7, SMALL.dim_out)
    with torch.no_grad():
        assert relative_error(ours(**inputs), oracle(**inputs)) <= FORWARD["small"].limit
    reference = gradients(oracle, inputs, target)
    for name, gradient in gradients(ours, inputs, target).items():
        assert relative_error(gradient, reference[name]) <= GRADIENT["small"].limit, name


def test_attention_dropout_takes_the_way_through_single_tokens() -> None:
    ours = POYO(SMALL, UNIT_IDS, SESSION_IDS, ffn_dropout=0, lin_dropout=0, atn_dropout=0.5)
    inputs = make_inputs(SMALL, n_padding=25)
    ours.train()
    assert not torch.equal(ours(**inputs), ours(**inputs))


def test_training_without_dropout_equals_eval() -> None:
    ours = POYO(SMALL, UNIT_IDS, SESSION_IDS, ffn_dropout=0.0, lin_dropout=0.0, atn_dropout=0.0)
    inputs = make_inputs(SMALL)
    trained, judged = ours.train()(**inputs), ours.eval()(**inputs)
    torch.testing.assert_close(trained, judged, rtol=0, atol=2e-6)  # fused, and written out


@pytest.mark.parametrize(("dim_head", "pairs"), [(64, 16), (16, 4), (128, 32)])
def test_omega_equals_torch_brains(dim_head: int, pairs: int) -> None:
    torch_brain_nn = pytest.importorskip("torch_brain.nn")
    reference = torch_brain_nn.RotaryTimeEmbedding(dim_head, 2 * pairs, 1e-4, 2.0627).omega
    assert torch.equal(RotaryTimeEmbedding(dim_head, pairs).omega, reference)


def test_new_embeddings_have_the_published_spread_and_a_zero_row() -> None:
    torch.manual_seed(0)
    table = VocabEmbedding((f"u{i}" for i in range(500)), 64)
    assert table.weight[0].abs().max() == 0
    assert table.weight[1:].std().item() == pytest.approx(0.02, rel=0.05)


def test_unknown_and_repeated_ids_are_named() -> None:
    with pytest.raises(UsageError, match="got 'nobody'"):
        VocabEmbedding(["a", "b"], 4).rows(["a", "nobody"])
    with pytest.raises(UsageError, match="unique ids other than 'NA', got 'a' again"):
        VocabEmbedding(["a", "a"], 4)


def make_recording(n_spikes: int, window_s: float, seed: int) -> tuple[Any, Any, Any]:
    """A torch_brain ``Data`` of one window, and its spike times and unit rows."""
    data = pytest.importorskip("torch_brain.data")
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, window_s, n_spikes))
    units = rng.integers(0, N_UNITS, n_spikes)
    window = data.Data(
        spikes=data.IrregularTimeSeries(
            timestamps=times, unit_index=units, domain=data.Interval(0.0, window_s)
        ),
        units=data.ArrayDict(id=np.array(UNIT_IDS)),
        session=SimpleNamespace(id=SESSION_IDS[1]),
        domain=data.Interval(0.0, window_s),
    )
    return window, times, units


@pytest.mark.parametrize("n_spikes", [0, 1, 7, 300])
@pytest.mark.parametrize(("window_s", "step_s"), [(1.0, 0.125), (1.0, 0.1), (0.5, 0.15)])
def test_tokens_equal_torch_brains_tokenizer(n_spikes: int, window_s: float, step_s: float) -> None:
    spec = ModelSpec(
        dim=16, depth=0, dim_head=8, cross_heads=1, self_heads=1, latents_per_step=3, dim_out=2,
        rotating_pairs=2, window_s=window_s, latent_step_s=step_s,
    )  # fmt: skip
    oracle = make_oracle(spec, UNIT_IDS, SESSION_IDS)
    window, times, units = make_recording(n_spikes, window_s, seed=n_spikes)
    reference = oracle.tokenize(window)

    tokens = window_tokens(times, units, N_UNITS, window_s)
    rows = np.array(oracle.unit_emb.tokenizer(UNIT_IDS))[tokens.unit]
    np.testing.assert_array_equal(rows, reference["input_unit_index"].obj)
    np.testing.assert_array_equal(tokens.type, reference["input_token_type"].obj)
    np.testing.assert_array_max_ulp(tokens.time, reference["input_timestamps"].obj, 1)
    assert int((tokens.type == TOKEN_SPIKE).sum()) == n_spikes

    index, time = latent_tokens(spec)
    np.testing.assert_array_equal(index, reference["latent_index"])
    np.testing.assert_array_max_ulp(time, reference["latent_timestamps"], 1)
    assert len(index) == spec.n_latents


def test_predictions_are_equal_on_a_batch_that_torch_brain_tokenized_and_padded() -> None:
    batching = pytest.importorskip("torch_brain.batching")
    ours, oracle = make_pair(SMALL)
    windows = [make_recording(n, SMALL.window_s, seed=n)[0] for n in (0, 30, 211)]
    inputs = batching.collate([oracle.tokenize(window) for window in windows])
    assert not inputs["input_mask"].all()
    inputs["output_timestamps"] = torch.linspace(0, 1, 5).expand(3, -1)
    with torch.no_grad():
        assert relative_error(ours(**inputs), oracle(**inputs)) <= FORWARD["small"].limit
