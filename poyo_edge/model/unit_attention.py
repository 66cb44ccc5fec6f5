"""The encoder's attention from keys and values that are computed once for each kind of token.

A token's key and value depend on its unit and type alone until they turn by its time. While
training on a processor, each window is attended to on its own: what it gathers and turns stays in
the cache, is made again for the gradients, and nothing is padded.

Shape suffixes: B batch, N input tokens of the longest window, M tokens of one window, L latents,
H heads, T heads twice, K head dim, P rotary pairs, R kinds of tokens (unit and type).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TYPES = 4
"""Types of tokens."""


def kinds(unit_BN: Tensor, type_BN: Tensor, n_units: int) -> tuple[Tensor, Tensor]:
    """The kinds of tokens that occur, and which one each token is.

    Args:
        unit_BN: (B, N) int64 rows of the unit table.
        type_BN: (B, N) int64 token types.
        n_units: rows of the unit table.

    Returns:
        (R,) int64, ``unit * TYPES + type`` of each kind, ascending; and (B, N) int64 rows of it.
    """
    code_BN = unit_BN * TYPES + type_BN
    occurs = torch.zeros(n_units * TYPES, dtype=torch.bool, device=code_BN.device)
    occurs[code_BN.flatten()] = True
    return occurs.nonzero().squeeze(1), (occurs.cumsum(0) - 1)[code_BN]


def lengths(mask_BN: Tensor | None, kind_BN: Tensor) -> list[int] | None:
    """Tokens of each window; None where they are not the first ones of their row."""
    if mask_BN is None:
        return [kind_BN.shape[1]] * len(kind_BN)
    found = mask_BN.sum(1)
    place = torch.arange(kind_BN.shape[1], device=mask_BN.device)
    if not bool((mask_BN == (place < found[:, None])).all()) or not bool(found.all()):
        return None
    counts: list[int] = found.tolist()
    return counts


def attend_by_kind(
    table_TRK: Tensor,
    query_BHLK: Tensor,
    kind_BN: Tensor,
    time_BN: Tensor,
    omega_P: Tensor,
    counts: list[int],
) -> Tensor:
    """(B, H, L, K): values, turned by their times, weighed by softmax.

    Args:
        table_TRK: keys of all heads, then values of all heads (T = 2 H), of each kind of token;
            not turned.
        query_BHLK: turned and scaled.
        kind_BN: (B, N) int64 rows of the table.
        time_BN: (B, N) seconds from the start of the window.
        omega_P: (P,) rad/s of the pairs that turn, the first ones of each head.
        counts: tokens of each window, at least one; those behind do not count.
    """
    found: Tensor = _ByKind.apply(
        table_TRK.contiguous(), query_BHLK.contiguous(), kind_BN, time_BN, omega_P, counts
    )  # type: ignore[no-untyped-call]
    return found


class _ByKind(torch.autograd.Function):
    """See ``attend_by_kind``. Weights are kept for the gradients, keys and values made again."""

    @staticmethod
    @torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        table: Tensor,
        query: Tensor,
        kind: Tensor,
        time: Tensor,
        omega: Tensor,
        counts: list[int],
    ) -> Tensor:
        heads, out = query.shape[1], torch.empty_like(query)
        weights, phases = list[Tensor](), list[Tensor]()
        for i, count in enumerate(counts):
            angle = time[i, :count, None] * omega
            phase = torch.complex(angle.cos().to(omega.dtype), angle.sin().to(omega.dtype))
            x_TMK = _turned(table, kind[i, :count], phase)
            weight = torch.bmm(query[i], x_TMK[:heads].transpose(1, 2)).softmax(-1)
            torch.bmm(weight, x_TMK[heads:], out=out[i])
            weights.append(weight)
            phases.append(phase)
        ctx.save_for_backward(table, query, kind, *phases, *weights)
        ctx.counts = counts
        return out

    @staticmethod
    @torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Any) -> Any:
        table, query, kind, *saved = ctx.saved_tensors
        phases, weights = saved[: len(ctx.counts)], saved[len(ctx.counts) :]
        heads, by_table, by_query = query.shape[1], torch.zeros_like(table), torch.empty_like(query)
        grad = grads[0].contiguous()
        both_BTLK = torch.cat((query, grad), dim=1)
        for i, count in enumerate(ctx.counts):
            rows, weight = kind[i, :count], weights[i]
            x_TMK = _turned(table, rows, phases[i])
            by_weight = torch.bmm(grad[i], x_TMK[heads:].transpose(1, 2))
            by_score = torch.ops.aten._softmax_backward_data(by_weight, weight, -1, weight.dtype)
            torch.bmm(by_score, x_TMK[:heads], out=by_query[i])
            by_x_TMK = torch.bmm(torch.cat((by_score, weight)).transpose(1, 2), both_BTLK[i])
            _turn(by_x_TMK, phases[i].conj())
            by_table.index_add_(1, rows, by_x_TMK)
        return by_table, by_query, None, None, None, None


def _turned(table_TRK: Tensor, rows_M: Tensor, phase_MP: Tensor) -> Tensor:
    x_TMK = table_TRK.index_select(1, rows_M)
    _turn(x_TMK, phase_MP)
    return x_TMK


def _turn(x_TMK: Tensor, phase_MP: Tensor) -> None:
    """Turn the first pairs of neighbouring dimensions, in place."""
    pairs = x_TMK.view(*x_TMK.shape[:-1], -1, 2)[..., : phase_MP.shape[-1], :]
    torch.view_as_complex(pairs).mul_(phase_MP)
