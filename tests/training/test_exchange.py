"""Checkpoints travel both ways between poyo-edge and torch_brain's own training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
models = pytest.importorskip("torch_brain.models")

from helpers.training.tiny_run import TINY, tiny_study  # noqa: E402
from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torch_brain.batching import collate  # noqa: E402

from poyo_edge.checkpoint import load_checkpoint  # noqa: E402
from poyo_edge.checkpoint.readouts import readouts_of  # noqa: E402
from poyo_edge.spec import OutputScale  # noqa: E402
from poyo_edge.training import train  # noqa: E402
from poyo_edge.training.run import quiet_lightning  # noqa: E402
from poyo_edge.training.start import prepare  # noqa: E402
from poyo_edge.training.windows import StepBatches  # noqa: E402

HYPER = {
    "sequence_length": 1.0,
    "latent_step": 0.125,
    "num_latents_per_step": 4,
    "dim": 16,
    "depth": 1,
    "dim_head": 16,
    "cross_heads": 1,
    "self_heads": 2,
}


class Example(LightningModule):
    """The wrapper of torch_brain 0.1.2's ``examples/poyo/train.py``: what it saves is layout B2."""

    def __init__(self, cfg: dict[str, Any], model: Any) -> None:
        super().__init__()
        self.model = model
        self.save_hyperparameters(cfg)

    def training_step(self, batch: dict[str, Any], _: int) -> Any:
        """The loss of the example."""
        target, weight = batch.pop("target"), batch.pop("target_weight")
        error = (self.model(**batch) - target).square().mean(dim=-1)
        return (error * weight).sum() / weight.sum()

    def configure_optimizers(self) -> Any:
        """Any optimiser."""
        return torch.optim.AdamW(self.model.parameters(), lr=1e-2)


def batch_of(folder: Path) -> dict[str, Any]:
    plan = prepare(folder, TINY)
    dataset = plan.dataset()
    (draws,) = StepBatches(plan.sessions, TINY, steps=1)
    batch: dict[str, Any] = collate([dataset[draw] for draw in draws])
    return batch


def without_targets(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if not name.startswith("target")}


def test_we_load_what_torch_brains_example_writes(tmp_path: Path) -> None:
    tiny_study(tmp_path)
    plan, batch = prepare(tmp_path, TINY), batch_of(tmp_path)
    theirs = models.POYO(**HYPER, dim_out=2)
    theirs.unit_emb.initialize_vocab(list(plan.model.unit_emb.vocab)[1:])
    theirs.session_emb.initialize_vocab(list(plan.model.session_emb.vocab)[1:])
    cfg = {"model": {"_target_": "torch_brain.models.POYO", **HYPER}, "batch_size": 8}
    with quiet_lightning():
        trainer = Trainer(max_steps=2, logger=False, enable_checkpointing=False,
                          enable_progress_bar=False, enable_model_summary=False,
                          accelerator="cpu", log_every_n_steps=1)  # fmt: skip
        batches: DataLoader[Any] = DataLoader([dict(batch), dict(batch)], batch_size=None)  # type: ignore[arg-type]
        trainer.fit(Example(cfg, theirs), batches)
    trainer.save_checkpoint(tmp_path / "example.ckpt")
    loaded = load_checkpoint(tmp_path / "example.ckpt", output_scale=10.0)
    assert loaded.layout == "B2"
    with torch.no_grad():
        expected = theirs.eval()(**without_targets(batch))
        got = loaded.model()(**without_targets(batch))
    assert expected.std() > 1e-3
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    begun = prepare(tmp_path, TINY, start_from=tmp_path / "example.ckpt").model.eval()
    with torch.no_grad():
        torch.testing.assert_close(begun(**without_targets(batch)), got, rtol=0, atol=1e-6)


def test_torch_brain_loads_what_we_write(tmp_path: Path) -> None:
    tiny_study(tmp_path)
    source = dataclasses.replace(TINY.data["recordings"], unit="cm/s")
    recipe = dataclasses.replace(TINY, data={"recordings": source})
    path = train(tmp_path, recipe, tmp_path / "ours.ckpt").checkpoint
    inputs = without_targets(batch_of(tmp_path))
    with torch.no_grad():
        expected = models.POYO.load_pretrained(path).eval()(**inputs)
        got = load_checkpoint(path).model()(**inputs)
    assert np.isfinite(got.numpy()).all() and expected.std() > 1e-3
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert load_checkpoint(path).output == OutputScale(scale=(10.0,), unit="cm/s")
    assert {scale.unit for scale, _ in readouts_of(path).values()} == {"cm/s"}
