"""Reading research checkpoints: every layout, every refusal, and nothing is ever executed."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

torch_brain_models = pytest.importorskip(
    "torch_brain.models", reason="torch_brain writes the files"
)

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from poyo_edge.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from poyo_edge.checkpoint_layout import expected_shapes, omega_formula  # noqa: E402
from poyo_edge.errors import CheckpointError, UsageError  # noqa: E402
from poyo_edge.model import POYO, RotaryTimeEmbedding  # noqa: E402
from poyo_edge.spec import POYO_1_3M, ModelSpec, OutputScale  # noqa: E402
from poyo_edge.tokens import latent_tokens, window_tokens  # noqa: E402

State = dict[str, Any]

SPEC = ModelSpec(
    dim=32, depth=2, dim_head=16, cross_heads=2, self_heads=3, latents_per_step=4, dim_out=2,
    rotating_pairs=4,
)  # fmt: skip
SESSIONS = ["perich/c_1", "perich/c_1/b", "perich/t_9"]
UNITS = ["perich/c_1/u0", "perich/c_1/u1", "perich/c_1/b/u0", "perich/t_9/model.u0"]
MODEL_HYPER = {
    "_target_": "torch_brain.models.POYO",
    "sequence_length": 1.0,
    "latent_step": 0.125,
    "num_latents_per_step": 4,
    "dim": 32,
    "depth": 2,
    "dim_head": 16,
    "cross_heads": 2,
    "self_heads": 3,
    "ffn_dropout": 0.2,
}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "checkpoints"


@pytest.fixture
def oracle() -> Any:
    torch.manual_seed(0)
    model = torch_brain_models.POYO(
        sequence_length=1.0, latent_step=0.125, num_latents_per_step=4, dim_out=2,
        dim=32, depth=2, dim_head=16, cross_heads=2, self_heads=3,
    )  # fmt: skip
    model.unit_emb.initialize_vocab(UNITS)
    model.session_emb.initialize_vocab(SESSIONS)
    for table in (model.unit_emb, model.session_emb, model.token_type_emb, model.latent_emb):
        nn.init.normal_(table.weight)
    return model.eval()


@pytest.fixture
def state(oracle: Any) -> State:
    return dict(oracle.state_dict())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


def save(content: object, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def lightning(state: State, hyper: object = None, prefix: str = "model.") -> dict[str, Any]:
    """The dict that a Lightning trainer saves."""
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.1",
        "state_dict": OrderedDict({prefix + key: value for key, value in state.items()}),
        "loops": {},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
        "hyper_parameters": {"model": dict(MODEL_HYPER)} if hyper is None else hyper,
    }


def readout(**scale: Any) -> dict[str, Any]:
    """One entry of ``hyper_parameters["dataset"]`` as v0.1.0 saved it."""
    section = {"readout_id": "cursor_velocity_2d", **scale}
    return {"selection": [{"brainset": "perich"}], "config": {"readout": section}}


def hyper_b1(*datasets: dict[str, Any]) -> dict[str, Any]:
    return {"model": dict(MODEL_HYPER), "dataset": list(datasets), "epochs": 1}


def numpy_words(state: State) -> State:
    """The state with ``numpy.str_`` vocabulary words, as v0.1 saved them."""
    out = dict(state)
    for key in ("unit_emb.vocab", "session_emb.vocab"):
        out[key] = OrderedDict({np.str_(word): row for word, row in state[key].items()})
    return out


def old_omega(dim_head: int) -> Tensor:
    """``omega`` by the formula of v0.1.0, in float32 like there."""
    omega = torch.zeros(dim_head // 2)
    power = torch.arange(0, dim_head // 2, 2).float() / (dim_head // 2)
    omega[: dim_head // 4] = 2 * torch.pi / (1e-4 * (4.0 / 1e-4) ** power)
    return omega


def predict(model: nn.Module, units: list[int], sessions: list[int]) -> Tensor:
    """Predictions for a fixed window of two sessions; rows are the model's own."""
    rng = np.random.default_rng(5)
    tokens = window_tokens(np.sort(rng.uniform(0, 1, 40)), rng.integers(0, 4, 40), 4, 1.0)
    index, time = latent_tokens(SPEC)
    with torch.no_grad():
        out: Tensor = model(
            input_unit_index=torch.tensor(units)[torch.from_numpy(tokens.unit)].expand(2, -1),
            input_timestamps=torch.from_numpy(tokens.time).float().expand(2, -1),
            input_token_type=torch.from_numpy(tokens.type).expand(2, -1),
            latent_index=torch.from_numpy(index).expand(2, -1),
            latent_timestamps=torch.from_numpy(time).float().expand(2, -1),
            session_index=torch.tensor(sessions[:2]),
            output_timestamps=torch.linspace(0, 1, 6).expand(2, -1),
        )
    return out


def assert_decodes_like(checkpoint: Checkpoint, oracle: Any) -> None:
    model = checkpoint.model()
    assert not model.training
    ours = predict(model, model.unit_emb.rows(UNITS), model.session_emb.rows(SESSIONS))
    units, sessions = oracle.unit_emb.tokenizer(UNITS), oracle.session_emb.tokenizer(SESSIONS)
    theirs = predict(oracle, units, sessions)
    assert theirs.std() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.std().item())


def noted(checkpoint: Checkpoint, text: str) -> bool:
    return any(text in note for note in checkpoint.notes)


def test_b3_bare_state_dict(oracle: Any, state: State, file: Path) -> None:
    checkpoint = load_checkpoint(save(state, file))
    assert (checkpoint.layout, checkpoint.container, checkpoint.prefix) == ("B3", "state_dict", "")
    assert checkpoint.spec == SPEC
    assert checkpoint.output == OutputScale()
    assert checkpoint.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert noted(checkpoint, "no sequence_length; the default of 1 s was assumed")
    assert noted(checkpoint, "no latent_step; the default of 0.125 s was assumed")
    assert noted(checkpoint, "--output-scale sets it")
    assert_decodes_like(checkpoint, oracle)


def test_b3_under_a_state_dict_key(oracle: Any, state: State, file: Path) -> None:
    checkpoint = load_checkpoint(save({"state_dict": state, "epoch": 1}, file))
    assert (checkpoint.layout, checkpoint.container) == ("B3", "lightning")
    assert_decodes_like(checkpoint, oracle)


def test_b2_takes_the_window_from_the_hyper_parameters(
    oracle: Any, state: State, file: Path
) -> None:
    hyper = {"model": {**MODEL_HYPER, "sequence_length": 2.0, "latent_step": 0.25}}
    hyper["dataset"] = {"_target_": "datasets.poyo_mp.PoyoMPDataset"}
    checkpoint = load_checkpoint(save(lightning(numpy_words(state), hyper), file))
    assert (checkpoint.layout, checkpoint.container) == ("B2", "lightning")
    assert checkpoint.prefix == "model."
    assert (checkpoint.spec.window_s, checkpoint.spec.latent_step_s) == (2.0, 0.25)
    assert checkpoint.output == OutputScale()
    assert noted(checkpoint, "--output-scale sets it")
    assert not noted(checkpoint, "default")
    assert all(type(word) is str for word in [*checkpoint.unit_vocab, *checkpoint.session_vocab])


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ({"normalize_mean": 0.0, "normalize_std": 20.0}, OutputScale(scale=(20.0,))),
        ({"normalize_std": 20}, OutputScale(scale=(20.0,))),
        (
            {"normalize_mean": [0.5, 1.0], "normalize_std": [20.0, 30.0]},
            OutputScale(scale=(20.0, 30.0), offset=(0.5, 1.0)),
        ),
    ],
)
def test_b1_takes_the_output_scale_from_the_readout(
    oracle: Any, state: State, file: Path, scale: dict[str, Any], expected: OutputScale
) -> None:
    state["rotary_emb.omega"] = old_omega(16)
    oracle.rotary_emb.omega.copy_(old_omega(16))
    content = lightning(numpy_words(state), hyper_b1(readout(**scale)))
    checkpoint = load_checkpoint(save(content, file))
    assert checkpoint.layout == "B1"
    assert checkpoint.output == expected
    assert checkpoint.omega_formula == "v0.1.0"
    assert noted(checkpoint, "comes from the file's readout")
    assert_decodes_like(checkpoint, oracle)


def test_b1_datasets_that_disagree_set_no_scale(state: State, file: Path) -> None:
    hyper = hyper_b1(readout(normalize_std=20.0), readout(normalize_std=100.0))
    checkpoint = load_checkpoint(save(lightning(state, hyper), file))
    assert checkpoint.output == OutputScale()
    assert noted(checkpoint, "scaled differently ([100.0] and [20.0])")


def test_b0_shapes_win_over_the_hyper_parameters(oracle: Any, state: State, file: Path) -> None:
    hyper = {
        "model": {"_target_": "torch_brain.models.POYO", "dim": 128, "depth": 24, "num_latents": 4},
        "sequence_length": 0.5,
        "latent_step": 0.125,
    }
    checkpoint = load_checkpoint(save(lightning(state, hyper), file))
    assert checkpoint.layout == "B0"
    assert (checkpoint.spec.dim, checkpoint.spec.depth) == (32, 2)
    assert checkpoint.spec.window_s == 0.5
    assert noted(checkpoint, "says dim=128, the tensors say 32; the tensors won")
    assert noted(checkpoint, "says depth=24, the tensors say 2; the tensors won")
    assert not noted(checkpoint, "num_latents")


@pytest.mark.parametrize(
    "prefix", ["model.", "module.", "_orig_mod.", "model._orig_mod.", "model.module._orig_mod."]
)
def test_wrapper_prefixes_are_stripped(oracle: Any, state: State, file: Path, prefix: str) -> None:
    checkpoint = load_checkpoint(save(lightning(state, prefix=prefix), file))
    assert checkpoint.prefix == prefix
    assert_decodes_like(checkpoint, oracle)


def test_prefixes_are_never_removed_inside_a_key(state: State, file: Path) -> None:
    state["enc_atn.model.to_q.weight"] = state.pop("enc_atn.to_q.weight")
    with pytest.raises(CheckpointError, match=r"enc_atn\.to_q\.weight: expected a tensor"):
        load_checkpoint(save(lightning(state), file))


def test_vocabulary_rows_are_the_values_not_the_order(
    oracle: Any, state: State, file: Path
) -> None:
    words = list(state["unit_emb.vocab"].items())
    state["unit_emb.vocab"] = OrderedDict(reversed(words))
    checkpoint = load_checkpoint(save(state, file))
    assert checkpoint.unit_vocab == dict(words)
    assert_decodes_like(checkpoint, oracle)


def test_weights_and_vocabulary_survive_unchanged(state: State, file: Path) -> None:
    checkpoint = load_checkpoint(save(lightning(numpy_words(state)), file))
    back = checkpoint.model().state_dict()
    assert set(back) == set(state)
    for key, value in state.items():
        assert torch.equal(back[key], value) if isinstance(value, Tensor) else back[key] == value
        if isinstance(value, Tensor):
            assert torch.equal(checkpoint.weights[key], value)
    assert set(checkpoint.weights) == {k for k in state if not k.endswith(".vocab")}


def test_arguments_win_over_the_file(state: State, file: Path) -> None:
    hyper = hyper_b1(readout(normalize_std=20.0, normalize_mean=1.5))
    save(lightning(state, hyper), file)
    checkpoint = load_checkpoint(
        file, sequence_length=2.0, latent_step=0.5, output_scale=[3.0, 4.0]
    )
    assert (checkpoint.spec.window_s, checkpoint.spec.latent_step_s) == (2.0, 0.5)
    assert checkpoint.output == OutputScale(scale=(3.0, 4.0), offset=(1.5,))
    assert noted(checkpoint, "says sequence_length=1.0; the argument 2.0 won")
    assert noted(checkpoint, "says latent_step=0.125; the argument 0.5 won")
    assert noted(checkpoint, "says output scale [20.0]; the argument won")


def test_an_argument_that_agrees_is_no_contradiction(state: State, file: Path) -> None:
    checkpoint = load_checkpoint(save(lightning(state), file), sequence_length=1.0)
    assert not noted(checkpoint, "won")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 0.0}, "sequence_length: expected seconds > 0, got 0.0"),
        ({"latent_step": math.nan}, "latent_step: expected seconds > 0, got nan"),
        ({"output_scale": 0.0}, "scale: expected numbers other than 0"),
        ({"output_scale": [1.0, 2.0, 3.0]}, "scale: expected 1 or 2 numbers, got 3"),
        ({"output_scale": "10"}, "scale: expected finite numbers"),
    ],
)
def test_arguments_without_sense_are_usage_errors(
    state: State, file: Path, arguments: dict[str, Any], message: str
) -> None:
    save(state, file)
    with pytest.raises(UsageError, match=message):
        load_checkpoint(file, **arguments)


def test_other_sizes_are_read_from_shapes(file: Path) -> None:
    spec = ModelSpec(
        dim=24, depth=3, dim_head=8, cross_heads=3, self_heads=5, latents_per_step=7, dim_out=1,
        ffn_mult=2, rotating_pairs=3,
    )  # fmt: skip
    ours = POYO(spec, ["a"], ["b"])
    assert load_checkpoint(save(ours.state_dict(), file)).spec == spec


def test_expected_shapes_are_all_keys_of_the_model() -> None:
    tensors = {
        k: v for k, v in POYO(POYO_1_3M, "abc", "d").state_dict().items() if "vocab" not in k
    }
    assert expected_shapes(POYO_1_3M, 4, 2) == {k: tuple(v.shape) for k, v in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32_with_a_note(
    state: State, file: Path, dtype: torch.dtype
) -> None:
    state["readout.weight"] = state["readout.weight"].to(dtype)
    checkpoint = load_checkpoint(save(state, file))
    assert checkpoint.weights["readout.weight"].dtype == torch.float32
    assert noted(checkpoint, f"stored as {dtype} were converted to float32")


@pytest.mark.parametrize("dim_head", [64, 16])
def test_omega_formula_is_told_from_the_values(dim_head: int) -> None:
    new = RotaryTimeEmbedding(dim_head, dim_head // 4).omega
    assert omega_formula(new) == "v0.1.1+"
    assert omega_formula(old_omega(dim_head)) == "v0.1.0"
    assert omega_formula(new * 1.001) == "custom"
    assert omega_formula(RotaryTimeEmbedding(dim_head, dim_head // 4, t_max=4.0).omega) == "custom"
    assert omega_formula(torch.zeros(8)) == "custom"


def test_old_omega_at_head_size_64_has_the_published_values() -> None:
    assert old_omega(64)[15].item() == pytest.approx(3.0461314, abs=1e-7)
    assert old_omega(64)[1].item() == pytest.approx(32400.457, abs=2e-3)


def test_session_units_take_the_longest_session_that_begins_the_id(
    state: State, file: Path
) -> None:
    assert load_checkpoint(save(state, file)).session_units() == {
        "perich/c_1": ("perich/c_1/u0", "perich/c_1/u1"),
        "perich/c_1/b": ("perich/c_1/b/u0",),
        "perich/t_9": ("perich/t_9/model.u0",),
    }


def test_units_of_no_session_are_left_out_and_noted(file: Path) -> None:
    ours = POYO(SPEC, ["day1/u0", "day12/u0", "loose"], ["day1", "day2"])
    checkpoint = load_checkpoint(save(ours.state_dict(), file))
    assert checkpoint.session_units() == {"day1": ("day1/u0",), "day2": ()}
    assert noted(checkpoint, "2 units match no session and belong to none, first 'day12/u0'")


def test_a_single_session_owns_units_without_its_name(file: Path) -> None:
    ours = POYO(SPEC, ["u0", "u1"], ["today"])
    checkpoint = load_checkpoint(save(ours.state_dict(), file))
    assert checkpoint.session_units() == {"today": ("u0", "u1")}
    assert not noted(checkpoint, "match no session")


class Canary:
    """Unpickling this without protection would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=4))


def torch_zip(content: object, path: Path) -> None:
    torch.save(content, path)


def torch_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS = [torch_zip, torch_legacy, plain_pickle]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("place", ["alone", "hyper_parameters", "vocab"])
def test_a_malicious_pickle_is_refused_and_does_not_run(
    state: State, file: Path, tmp_path: Path, write: Callable[[object, Path], None], place: str
) -> None:
    canary = Canary(tmp_path / "canary")
    content: object = canary
    if place == "hyper_parameters":
        content = lightning(state, {"model": canary})
    if place == "vocab" and write is not plain_pickle:
        content = {**state, "unit_emb.vocab": canary}
    write(content, file)
    with pytest.raises(CheckpointError, match=r"the global '(builtins\.)?exec'") as caught:
        load_checkpoint(file)
    assert "it was refused and did not run" in str(caught.value)
    assert not canary.path.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_the_malicious_pickle_would_run_without_protection(
    file: Path, tmp_path: Path, write: Callable[[object, Path], None]
) -> None:
    write(Canary(tmp_path / "canary"), file)
    if write is plain_pickle:
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (np.zeros(3), r"numpy\._?core.multiarray._reconstruct"),
        (np.int64(3), "numpy.dtype"),
        (Path("x"), "pathlib"),
    ],
)
def test_a_pickled_object_is_refused_by_name(
    state: State, file: Path, extra: object, name: str
) -> None:
    with pytest.raises(CheckpointError, match=f"the global '{name}"):
        load_checkpoint(save({**state, "extra": extra}, file))


def rename(state: State, old: str, new: str) -> State:
    return {key.replace(old, new): value for key, value in state.items()}


def test_old_numpy_names_of_string_scalars_are_read(state: State, file: Path) -> None:
    save(numpy_words(state), file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"numpy._core.multi", b"numpy.core.multi"))
    checkpoint = load_checkpoint(file)
    assert list(checkpoint.unit_vocab) == ["NA", *UNITS]


TASK = torch.zeros(3, 32)
FOREIGN = {
    "layout A (POYO before torch_brain 0.1.0": lambda s: lightning(s, prefix="model.perceiver_io."),
    "layout C (POYO+, several tasks)": lambda s: lightning({**s, "task_emb.weight": TASK}),
    "layout D (CaPOYO": lambda s: lightning({**s, "input_value_map.weight": TASK}),
    "layout E (POSSM": lambda s: lightning({**s, "backbone.net.weight_ih_l0": TASK}),
    "layout F (ibl-bwb": lambda s: {"model_state_dict": s, "epoch": 1},
    "a LoRA checkpoint": lambda s: lightning({**s, "enc_atn.to_q.lora_A": TASK}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_relatives_of_poyo_are_refused_by_name(state: State, file: Path, name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(save(FOREIGN[name](state), file))
    assert caught.value.field == "layout"
    assert name in str(caught.value)
    assert "not supported yet" in str(caught.value)


def test_a_pickled_module_beside_the_weights_is_never_built(
    oracle: Any, state: State, file: Path
) -> None:
    checkpoint = load_checkpoint(save(lightning(state, {"model": nn.Linear(2, 2)}), file))
    assert_decodes_like(checkpoint, oracle)


def test_a_pickled_module_among_the_weights_is_refused_by_its_class(
    state: State, file: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"extra: .* got torch\.nn\.modules\.linear\.Linear"):
        load_checkpoint(save({**state, "extra": nn.Linear(2, 2)}, file))


def test_a_tensor_that_repeats_itself_beyond_the_limit_is_refused(state: State, file: Path) -> None:
    state["readout.weight"] = torch.zeros(1).expand(1 << 34)
    with pytest.raises(CheckpointError, match="within its limits of memory and time"):
        load_checkpoint(save(state, file))


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(state: State, file: Path) -> None:
    save(state, file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/bomb", bytes(1 << 22))
    with pytest.raises(CheckpointError, match=r"an archive of \d+ bytes that unpacks to \d+"):
        load_checkpoint(file)


def test_the_child_that_reads_can_open_nothing() -> None:
    code = (
        "import os, socket\n"
        "from poyo_edge.checkpoint_unpickling import _confine\n"
        "_confine(0)\n"
        "for attempt in (lambda: os.open('/dev/null', 0), socket.socket):\n"
        "    try:\n        attempt()\n"
        "    except OSError:\n        continue\n"
        "    os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def write_text(path: Path) -> None:
    path.write_text("unit_emb.weight: 3\n" * 20)


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as opened:
        opened["spikes/timestamps"] = np.zeros(3)


def write_npz(path: Path) -> None:
    with path.open("wb") as opened:
        np.savez(opened, a=np.zeros(3))


def write_safetensors(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def write_torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/constants.pkl", b"\x80\x02).")
        archive.writestr("m/data.pkl", b"\x80\x02).")


def write_truncated(path: Path, keep: float = 0.5) -> None:
    torch_zip({"a": torch.zeros(5000)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def write_truncated_legacy(path: Path) -> None:
    torch_legacy({"a": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes()[:4000])


def write_damaged_pickle(path: Path) -> None:
    torch_zip({"a": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes().replace(b"ctorch._utils", b"\xfftorch._utils"))


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: None, "file: expected a torch checkpoint, got no such file"),
    "folder": (lambda p: p.mkdir(), "got a folder; pass the checkpoint file inside it"),
    "empty": (lambda p: p.write_bytes(b""), "got an empty file; copy or download it again"),
    "text": (write_text, "got a file of another format"),
    "hdf5": (write_hdf5, "got an HDF5 file; pass the checkpoint, not a recording"),
    "npz": (write_npz, "got a zip archive without tensors"),
    "safetensors": (write_safetensors, "got a safetensors file, which holds no vocabulary"),
    "torchscript": (write_torchscript, "got a TorchScript archive"),
    "truncated": (write_truncated, "got a truncated or damaged file"),
    "barely truncated": (lambda p: write_truncated(p, 0.999), "got a truncated or damaged file"),
    "truncated legacy": (write_truncated_legacy, "got a truncated or damaged file"),
    "damaged": (write_damaged_pickle, "got a truncated or damaged file"),
    "plain pickle": (lambda p: plain_pickle({"a": 1}, p), "a pickle that torch did not write"),
    "one tensor": (lambda p: torch.save(torch.zeros(3), p), "content: .* got Tensor"),
    "list": (lambda p: torch.save([torch.zeros(3)], p), "content: .* got list"),
    "no tensors": (lambda p: torch.save({"a": 1}, p), r"content: .* no tensor under the keys \['a"),
    "empty dict": (lambda p: torch.save({}, p), r"content: .* no tensor under the keys \[\]"),
    "state of a list": (lambda p: torch.save({"state_dict": [1]}, p), "state_dict that is a list"),
    "numbered keys": (lambda p: torch.save({0: torch.zeros(3)}, p), "got keys that are not text"),
    "another model": (
        lambda p: torch.save(nn.Linear(2, 3).state_dict(), p),
        r"rotary_emb\.omega: expected a tensor, got no such key",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_no_checkpoint_are_one_sentence(file: Path, name: str) -> None:
    write, message = BAD_FILES[name]
    write(file)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def with_vocab(change: Callable[[dict[Any, Any]], object]) -> Callable[[State], None]:
    def apply(state: State) -> None:
        vocab = dict(state["unit_emb.vocab"])
        change(vocab)
        state["unit_emb.vocab"] = vocab

    return apply


def with_tensor(key: str, change: Callable[[Tensor], object]) -> Callable[[State], None]:
    def apply(state: State) -> None:
        state[key] = change(state[key].clone())

    return apply


def drop(key: str) -> Callable[[State], None]:
    return lambda state: state.pop(key)


def fill(index: int, value: float) -> Callable[[Tensor], Tensor]:
    def apply(tensor: Tensor) -> Tensor:
        tensor.view(-1)[index] = value
        return tensor

    return apply


OMEGA = "rotary_emb.omega"
INCONSISTENT: dict[str, tuple[Callable[[State], object], str]] = {
    "missing key": (
        drop("dec_atn.to_q.weight"),
        r"dec_atn\.to_q\.weight: expected a tensor of shape \(32, 32\), got no such key \(1 of",
    ),
    "missing layer": (
        drop("proc_layers.1.0.to_qkv.weight"),
        r"proc_layers\.1\.0\.to_qkv\.weight: expected a tensor of shape \(144, 32\)",
    ),
    "unexpected key": (
        lambda s: s.update({"extra.weight": torch.zeros(2)}),
        r"extra\.weight: expected no such key in a POYO, got a tensor of shape \(2,\)",
    ),
    "shape": (
        with_tensor("readout.bias", lambda t: torch.zeros(3)),
        r"readout\.bias: expected shape \(2,\), got shape \(3,\)",
    ),
    "feed-forward": (
        with_tensor("enc_ffn.1.net.3.weight", lambda t: torch.zeros(32, 70)),
        r"enc_ffn\.1\.net\.0\.weight: expected shape \(128, 32\), got shape \(256, 32\)",
    ),
    "heads": (
        with_tensor("enc_atn.to_q.weight", lambda t: torch.zeros(33, 32)),
        r"enc_atn\.to_q\.weight: expected a multiple of 16 rows, got 33 rows",
    ),
    "axes": (
        with_tensor("latent_emb.weight", lambda t: torch.zeros(4)),
        r"latent_emb\.weight: expected a tensor with 2 non-empty axes, got shape \(4,\)",
    ),
    "empty table": (
        with_tensor("unit_emb.weight", lambda t: torch.zeros(0, 32)),
        r"unit_emb\.weight: expected a tensor with 2 non-empty axes",
    ),
    "integers": (
        with_tensor("readout.weight", lambda t: t.long()),
        r"readout\.weight: expected a dense floating-point tensor, got torch\.int64",
    ),
    "no tensor": (
        lambda s: s.update({"readout.weight": 3}),
        r"readout\.weight: expected a dense floating-point tensor, got int",
    ),
    "sparse": (
        with_tensor("readout.weight", lambda t: t.to_sparse()),
        r"readout\.weight: expected a dense floating-point tensor, got a torch\.sparse_coo tensor",
    ),
    "nan": (
        with_tensor("readout.weight", fill(3, math.nan)),
        r"readout\.weight: expected finite float32 numbers, got 1 that are not finite",
    ),
    "too large for float32": (
        with_tensor("readout.weight", lambda t: fill(0, 1e300)(t.double())),
        r"readout\.weight: expected finite float32 numbers, got 1 that",
    ),
    "omega infinite": (with_tensor(OMEGA, fill(0, math.inf)), "omega: expected finite"),
    "omega negative": (
        with_tensor(OMEGA, fill(0, -3.0)),
        "omega: expected rates >= 0 rad/s, got -3",
    ),
    "omega gap": (with_tensor(OMEGA, fill(1, 0.0)), "omega: expected zeros only at the end"),
    "omega axes": (
        with_tensor(OMEGA, lambda t: t[None]),
        "omega: expected a tensor with 1 non-empty",
    ),
    "no vocabulary": (
        drop("unit_emb.vocab"),
        r"unit_emb\.vocab: expected a mapping .* no such key",
    ),
    "vocabulary is a list": (
        lambda s: s.update({"session_emb.vocab": SESSIONS}),
        r"session_emb\.vocab: expected a mapping from ids to rows, got list",
    ),
    "no NA": (
        with_vocab(lambda v: v.pop("NA")),
        "expected the word 'NA' at row 0, got no such word",
    ),
    "NA elsewhere": (
        with_vocab(lambda v: v.update({"NA": 1, UNITS[0]: 0})),
        "expected the word 'NA' at row 0, got 1",
    ),
    "row too large": (
        with_vocab(lambda v: v.update({UNITS[0]: 99})),
        "expected ids with rows 0 to 4, got 'perich/c_1/u0': 99",
    ),
    "row negative": (with_vocab(lambda v: v.update({UNITS[0]: -1})), "c_1/u0': -1"),
    "row is a bool": (with_vocab(lambda v: v.update({UNITS[0]: True})), "c_1/u0': True"),
    "row is a float": (with_vocab(lambda v: v.update({UNITS[0]: 1.0})), r"c_1/u0': 1\.0"),
    "word is a number": (with_vocab(lambda v: v.update({7: 1})), "got 7: 1"),
    "row used twice": (
        with_vocab(lambda v: v.update({UNITS[0]: 2})),
        "expected a row of its own for each id, got ids that share a row",
    ),
    "too few ids": (
        with_vocab(lambda v: v.pop(UNITS[3])),
        "expected 5 ids, one per row of the table, got 4 ids",
    ),
    "key with and without prefix": (
        lambda s: s.update({"model.readout.bias": s["readout.bias"]}),
        r"model\.readout\.bias: expected no such key",
    ),
}


@pytest.mark.parametrize("name", INCONSISTENT)
def test_inconsistent_weights_are_refused_by_key(state: State, file: Path, name: str) -> None:
    break_it, message = INCONSISTENT[name]
    load_checkpoint(save(state, file))
    break_it(state)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(save(state, file))
    assert "\n" not in str(caught.value)


def test_a_key_that_occurs_with_and_without_prefix_is_refused(state: State, file: Path) -> None:
    content = lightning(state)
    content["state_dict"]["readout.bias"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"both with and without the prefix 'model\.'"):
        load_checkpoint(save(content, file))


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"model": {**MODEL_HYPER, "sequence_length": "1s"}}, "sequence_length: .* got '1s'"),
        ({"model": {**MODEL_HYPER, "latent_step": -1.0}}, "latent_step: expected seconds > 0"),
        ({"model": {**MODEL_HYPER, "latent_step": 2.0}}, "latent_step: expected 1 to 65536 steps"),
        ({"model": {**MODEL_HYPER, "latent_step": 1e-12}}, "latent_step: expected 1 to 65536"),
        (hyper_b1(readout(normalize_std=0.0)), "normalize_std other than 0, got 0.0 and None"),
        (hyper_b1(readout(normalize_std=[1.0] * 3)), "expected 1 or 2 finite numbers"),
        (hyper_b1(readout(normalize_std="x")), "expected 1 or 2 finite numbers"),
        (hyper_b1(readout(normalize_std=1.0, normalize_mean=math.nan)), "got 1.0 and nan"),
    ],
)
def test_hyper_parameters_without_sense_are_refused(
    state: State, file: Path, hyper: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(save(lightning(state, hyper), file))


def test_arguments_overrule_hyper_parameters_without_sense(state: State, file: Path) -> None:
    hyper = hyper_b1(readout(normalize_std=0.0))
    hyper["model"]["sequence_length"] = torch.zeros(3)
    save(lightning(state, hyper), file)
    checkpoint = load_checkpoint(file, sequence_length=1.0, output_scale=5.0)
    assert checkpoint.output == OutputScale(scale=(5.0,))
    assert checkpoint.spec.window_s == 1.0


@pytest.mark.parametrize("hyper", [{"lr": 0.1}, {"model": None, "dataset": [None, {}]}, [1, 2]])
def test_hyper_parameters_of_another_kind_fall_back_to_defaults(
    state: State, file: Path, hyper: object
) -> None:
    checkpoint = load_checkpoint(save(lightning(state, hyper), file))
    assert checkpoint.layout in ("B2", "B3")
    assert checkpoint.spec == SPEC
    assert noted(checkpoint, "default of 1 s")


def test_no_flipped_byte_becomes_a_wrong_weight(state: State, file: Path) -> None:
    good = save(state, file).read_bytes()
    weights = load_checkpoint(file).weights
    rng = np.random.default_rng(0)
    n_refused = 0
    for position in rng.integers(0, len(good), 150):
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped)
        try:
            read = load_checkpoint(file).weights
        except CheckpointError:
            n_refused += 1
        else:
            assert all(torch.equal(read[key], value) for key, value in weights.items())
    assert n_refused > 75


def test_truncation_at_any_byte_is_refused(state: State, file: Path) -> None:
    good = save(state, file).read_bytes()
    for length in np.random.default_rng(0).integers(0, len(good), 40):
        file.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match=r"truncated|empty|another format"):
            load_checkpoint(file)


@pytest.fixture
def _no_checksums() -> Iterator[None]:
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


@pytest.mark.usefixtures("_no_checksums")
def test_files_without_checksums_are_read(state: State, file: Path) -> None:
    save(state, file)
    with zipfile.ZipFile(file) as archive:
        assert not any(info.CRC for info in archive.infolist())
    assert load_checkpoint(file).spec == SPEC
    save({**state, "extra": Path("x")}, file)
    with pytest.raises(CheckpointError, match=r"the global 'pathlib"):
        load_checkpoint(file)


def test_legacy_torch_files_are_read(oracle: Any, state: State, file: Path) -> None:
    save(state, file, _use_new_zipfile_serialization=False)
    assert_decodes_like(load_checkpoint(file), oracle)


REAL = {
    "wf5_bare.pt": ("B3", "state_dict", OutputScale()),
    "wf5_v0.1.2.ckpt": ("B2", "lightning", OutputScale()),
    "wf5_v0.1.0.ckpt": ("B1", "lightning", OutputScale(scale=(10.0,))),
}


@pytest.mark.parametrize("name", REAL)
def test_real_checkpoints(name: str) -> None:
    path = SHARED / name
    if not path.is_file():
        pytest.skip("the pretrained checkpoints are not beside this repository")
    layout, container, output = REAL[name]
    checkpoint = load_checkpoint(path)
    assert (checkpoint.layout, checkpoint.container) == (layout, container)
    assert checkpoint.output == output
    assert checkpoint.spec == ModelSpec(
        dim=64, depth=2, dim_head=64, cross_heads=2, self_heads=4, latents_per_step=8, dim_out=2
    )
    assert {len(units) for units in checkpoint.session_units().values()} == {96}
    assert len(checkpoint.session_units()) == 5
    assert torch.equal(checkpoint.model().rotary_emb.omega, checkpoint.weights[OMEGA])


def test_real_checkpoints_hold_the_same_weights() -> None:
    paths = [SHARED / name for name in REAL]
    if not all(path.is_file() for path in paths):
        pytest.skip("the pretrained checkpoints are not beside this repository")
    first, *others = (load_checkpoint(path) for path in paths)
    for other in others:
        assert other.unit_vocab == first.unit_vocab
        assert all(torch.equal(other.weights[k], v) for k, v in first.weights.items())
