"""The loss of a step and its gradients, of all windows at once or a few at a time.

Legend: B windows, N tokens, Q queries, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from poyo_edge.model import POYO

Batch = Mapping[str, Tensor]
_TARGETS = ("target", "target_weight")
_PER_TOKEN = ("input_unit_index", "input_timestamps", "input_token_type", "input_mask")


def step_loss(model: POYO, batch: Batch, total: Tensor, at_once: int = 0) -> Tensor:
    """The weighted mean square error of a step, in the model's scale.

    Args:
        model: in train mode.
        batch: the model's inputs (B, ...), ``target`` (B, Q, O) and ``target_weight`` (B, Q).
        total: sum of the weights of the step, as wide as the loss is to be averaged.
        at_once: windows that go through the model together; 0 takes all. Activations of a few
            fit a processor's cache, or a smaller GPU. Windows of like length go together, so
            that little is padded.

    Returns:
        The loss, a scalar; its ``backward`` gives all parameters the gradients of the whole step.
    """
    total = total.clamp(min=1e-6)
    if not 0 < at_once < len(batch["target"]):
        return _squares(model, batch) / total
    named = [p for p in model.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) for p in named]
    value = torch.zeros_like(total)
    for piece in pieces(batch, at_once):
        loss = _squares(model, piece) / total
        value += loss.detach()
        for sum_, found in zip(gradients, torch.autograd.grad(loss, named), strict=True):
            sum_ += found
    # A loss of that value whose gradients are those sums: clipping, DDP's averages and all else
    # that hangs on ``backward`` work as ever.
    parts = [((p - p.detach()) * g).sum() for p, g in zip(named, gradients, strict=True)]
    return value + torch.stack(parts).sum()


def pieces(batch: Batch, at_once: int) -> Iterator[dict[str, Tensor]]:
    """The windows of a batch, so many at a time, from short to long and as little padded."""
    mask = batch["input_mask"]
    for rows in torch.split(mask.sum(dim=1).argsort(stable=True), at_once):
        length = int(mask[rows].sum(dim=1).max())
        yield {
            name: value[rows, :length] if name in _PER_TOKEN else value[rows]
            for name, value in batch.items()
        }


def _squares(model: POYO, batch: Batch) -> Tensor:
    inputs = {name: value for name, value in batch.items() if name not in _TARGETS}
    error = (model(**inputs).float() - batch["target"]).square().mean(dim=-1)
    found: Tensor = (error * batch["target_weight"]).sum()
    return found
