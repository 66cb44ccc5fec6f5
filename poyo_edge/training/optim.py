"""Optimiser and schedule of a recipe.

``SparseLamb`` is what POYO was published with. torch_brain ships it with its examples, not in its
package, and other libraries' LAMB moves every row of a table in each step; so it is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from poyo_edge.training.recipe import Recipe

_TABLES = ("unit_emb.", "session_emb.")
_SMALL_TABLES = ("latent_emb.", "token_type_emb.")
_LARGEST_NORM = 10.0


class SparseLamb(Optimizer):
    """LAMB (You et al. 2020, arXiv 1904.00962, v3: no bias correction) for tables of embeddings.

    A step is ``lr * r * (m / (sqrt(v) + eps) + weight_decay * w)`` with the trust ratio ``r`` =
    min(‖w‖, 10) / ‖update‖, over a whole tensor. In groups with ``sparse`` true, rows whose
    gradient is zero stay as they are, and forget their moments m and v, as torch_brain's
    ``SparseLamb`` has it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        sparse: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "sparse": sparse,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, w: Tensor, group: dict[str, Any]) -> None:
        grad, state = w.grad, self.state[w]
        assert grad is not None
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(w), torch.zeros_like(w)
        m, v = state["exp_avg"], state["exp_avg_sq"]
        beta1, beta2 = group["betas"]
        m.lerp_(grad, 1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        touched = None
        if group["sparse"]:
            touched = (grad != 0).any(dim=-1, keepdim=True)
            m.mul_(touched)
            v.mul_(touched)
        update = m / (v.sqrt() + group["eps"]) + group["weight_decay"] * w
        size, length = w.norm().clamp(max=_LARGEST_NORM), update.norm()
        trust = torch.where((size > 0) & (length > 0), size / length, torch.ones_like(size))
        if touched is not None:
            update = update * touched
        w.sub_(update * (group["lr"] * trust))


def optimizer_and_schedule(
    model: nn.Module,
    recipe: Recipe,
    steps: int,
    parts: Mapping[str, nn.Parameter] | None = None,
) -> tuple[Optimizer, OneCycleLR]:
    """A recipe's optimiser over a model, and its one-cycle schedule over so many steps.

    ``parts`` are learned in place of the tables that are their sums; see ``SharedTables``.
    """
    named = list(model.named_parameters())
    tables = [p for name, p in named if name.startswith(_TABLES)]
    if parts is not None:
        tables = [p for name, p in parts.items() if not name.endswith("own")]
    small = [p for name, p in named if name.startswith(_SMALL_TABLES)]
    others = [p for name, p in named if not name.startswith(_TABLES + _SMALL_TABLES)]
    groups: list[dict[str, Any]] = [{"params": tables}, {"params": small}, {"params": others}]
    high = recipe.peak_lr * recipe.table_lr
    rates = [high, high, recipe.peak_lr]
    if parts is not None:
        own = [p for name, p in parts.items() if name.endswith("own")]
        groups.append({"params": own, "weight_decay": recipe.own_decay})
        rates.append(high * recipe.own_lr)
    settings: dict[str, Any] = {
        "lr": recipe.peak_lr,
        "betas": (0.9, recipe.beta2),
        "weight_decay": recipe.weight_decay,
    }
    optimizer: Optimizer
    if recipe.optimizer == "adamw":
        optimizer = AdamW(groups, **settings)
    else:
        groups[0]["sparse"] = True
        optimizer = SparseLamb(groups, **settings)
    total = steps + 1  # Lightning steps it behind the last batch too
    share = recipe.warmup_share
    if abs(share * total - 1) < 1e-6:  # a rise of one step, which OneCycleLR divides by 0 for
        share *= 1 + 1e-5
    schedule = OneCycleLR(
        optimizer,
        rates,
        total_steps=total,
        pct_start=share,
        div_factor=recipe.div_factor,
    )
    return optimizer, schedule
