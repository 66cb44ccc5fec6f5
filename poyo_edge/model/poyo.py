"""POYO in plain torch operations, with torch_brain's ``state_dict`` keys.

The architecture is that of Azabou et al. 2023 (arXiv 2310.16046), as torch_brain's
``torch_brain.models.POYO`` builds it. Attention is written out (no fused kernels), so every
value can be exported, folded and compared.

Shape suffixes: B batch, N input tokens, L latents, Q queries, D model dim, H heads, K head dim,
P rotary pairs (K / 2), U vocabulary rows, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from poyo_edge.model.unit_attention import TYPES, attend_by_kind, kinds, lengths
from poyo_edge.model.vocabulary import VocabEmbedding
from poyo_edge.spec import ModelSpec


class RotaryTimeEmbedding(nn.Module):
    """Angles of rotary time embeddings; ``omega`` (P,) float32 in rad/s, zero where nothing turns.

    Source: torch_brain ``RotaryTimeEmbedding`` (periods log-spaced from 0.1 ms to 2.0627 s).
    """

    omega: Tensor

    def __init__(
        self, dim_head: int, rotating_pairs: int, t_min: float = 1e-4, t_max: float = 2.0627
    ) -> None:
        super().__init__()
        exponents = torch.linspace(0.0, 1.0, rotating_pairs)
        lo, hi = torch.tensor(t_min).log(), torch.tensor(t_max).log()
        omega = torch.zeros(dim_head // 2)
        omega[:rotating_pairs] = 2 * torch.pi / torch.exp(torch.lerp(lo, hi, exponents))
        self.register_buffer("omega", omega)
        self.rotating_pairs = rotating_pairs

    def forward(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """``(cos, sin)`` of the angles for ``time`` (..., ) seconds, each (..., rotating pairs).

        Angles have the dtype of ``time * omega``: float64 times give float64 angles.
        """
        angle = time[..., None] * self.omega[: self.rotating_pairs]
        return angle.cos().to(self.omega.dtype), angle.sin().to(self.omega.dtype)


def rotate(x_BHNK: Tensor, cos_BNP: Tensor, sin_BNP: Tensor) -> Tensor:
    """Turn neighbouring head dimensions (2i, 2i+1) by their angle. Shape unchanged.

    The first pairs turn, as many as there are angles; the dimensions behind them stay.
    """
    width = 2 * cos_BNP.shape[-1]
    even, odd = x_BHNK[..., 0:width:2], x_BHNK[..., 1:width:2]
    cos, sin = cos_BNP.unsqueeze(1), sin_BNP.unsqueeze(1)
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned, x_BHNK[..., width:]), dim=-1)


def rotate_complex(x_BHNK: Tensor, cos_BNP: Tensor, sin_BNP: Tensor) -> Tensor:
    """As ``rotate``, by complex products: half the time of a training step's rotations."""
    width = 2 * cos_BNP.shape[-1]
    turning = x_BHNK[..., :width].reshape(*x_BHNK.shape[:-1], width // 2, 2)
    pairs = torch.view_as_complex(turning)
    turned = pairs * torch.complex(cos_BNP, sin_BNP).unsqueeze(1)
    return torch.cat((torch.view_as_real(turned).flatten(-2), x_BHNK[..., width:]), dim=-1)


Rotation = tuple[Tensor, Tensor]


class _Attention(nn.Module):
    """What self-attention and cross-attention share: heads, rotation, softmax, output."""

    def __init__(self, spec: ModelSpec, heads: int, dropout: float, rotate_value: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1.0 / math.sqrt(spec.dim_head)
        self.dropout = dropout
        self.rotate_value = rotate_value
        self.to_out: nn.Linear

    def _split(self, x_BNC: Tensor) -> Tensor:
        return torch.unflatten(x_BNC, -1, (self.heads, -1)).transpose(1, 2)

    def _attend(
        self,
        q_BLC: Tensor,
        k_BNC: Tensor,
        v_BNC: Tensor,
        query_rotation: Rotation,
        context_rotation: Rotation,
        mask_BN: Tensor | None,
    ) -> Tensor:
        q, k, v = self._split(q_BLC), self._split(k_BNC), self._split(v_BNC)
        turn = rotate_complex if self.training and q.dtype == torch.float32 else rotate
        q = turn(q, *query_rotation) * self.scale
        k = turn(k, *context_rotation)
        if self.rotate_value:
            v = turn(v, *context_rotation)
        out_BHLK = self._weighed(q, k, v, mask_BN)
        if self.rotate_value:
            cos, sin = query_rotation
            out_BHLK = turn(out_BHLK, cos, -sin)
        out: Tensor = self.to_out(out_BHLK.transpose(1, 2).flatten(-2))
        return out

    def _weighed(self, q: Tensor, k: Tensor, v: Tensor, mask_BN: Tensor | None) -> Tensor:
        """(B, H, L, K): values weighed by softmax; fused while training, written out otherwise."""
        if self.training:
            mask = None if mask_BN is None else mask_BN[:, None, None, :]
            fused: Tensor = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=self.dropout, scale=1.0
            )
            return fused
        score_BHLN = q @ k.transpose(-1, -2)
        if mask_BN is not None:
            score_BHLN = score_BHLN.masked_fill(~mask_BN[:, None, None, :], -math.inf)
        return score_BHLN.softmax(-1) @ v


class CrossAttention(_Attention):
    """Queries attend to a context. Source: torch_brain ``RotaryCrossAttention``."""

    def __init__(self, spec: ModelSpec, dropout: float, rotate_value: bool) -> None:
        super().__init__(spec, spec.cross_heads, dropout, rotate_value)
        inner = spec.cross_heads * spec.dim_head
        self.norm = nn.LayerNorm(spec.dim)
        self.norm_context = nn.LayerNorm(spec.dim)
        self.to_q = nn.Linear(spec.dim, inner, bias=False)
        self.to_kv = nn.Linear(spec.dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, spec.dim)

    def forward(
        self,
        query_BLD: Tensor,
        context_BND: Tensor,
        query_rotation: Rotation,
        context_rotation: Rotation,
        mask_BN: Tensor | None = None,
    ) -> Tensor:
        """(B, L, D) float32 update of the queries; ``mask_BN`` is True for tokens that count."""
        q = self.to_q(self.norm(query_BLD))
        k, v = self.to_kv(self.norm_context(context_BND)).chunk(2, dim=-1)
        return self._attend(q, k, v, query_rotation, context_rotation, mask_BN)

    def from_table(
        self,
        query_BLD: Tensor,
        table_RD: Tensor,
        row_BN: Tensor,
        time_BN: Tensor,
        omega_P: Tensor,
        query_rotation: Rotation,
        mask_BN: Tensor | None = None,
    ) -> Tensor:
        """As ``forward`` with the context ``table_RD[row_BN]``, normalised and projected once.

        Args:
            query_BLD: see ``forward``.
            table_RD: the distinct rows of the context, (R, D).
            row_BN: (B, N) int64, which of them each token is.
            time_BN: (B, N) seconds of the tokens.
            omega_P: (P,) rad/s of the pairs that turn.
            query_rotation: see ``forward``.
            mask_BN: see ``forward``.
        """
        q = self.to_q(self.norm(query_BLD))
        kv_RC = self.to_kv(self.norm_context(table_RD))
        counts = lengths(mask_BN, row_BN) if kv_RC.device.type == "cpu" else None
        if counts is None or (self.dropout and self.training):
            k, v = functional.embedding(row_BN, kv_RC).chunk(2, dim=-1)
            angle = time_BN[..., None] * omega_P
            turned_by = (angle.cos().to(omega_P.dtype), angle.sin().to(omega_P.dtype))
            return self._attend(q, k, v, query_rotation, turned_by, mask_BN)
        q_BHLK = rotate_complex(self._split(q).float(), *query_rotation) * self.scale
        table_TRK = kv_RC.float().unflatten(-1, (2 * self.heads, -1)).transpose(0, 1)
        out_BHLK = attend_by_kind(table_TRK, q_BHLK, row_BN, time_BN, omega_P, counts)
        cos, sin = query_rotation
        out_BHLK = rotate_complex(out_BHLK, cos, -sin).to(q.dtype)
        out: Tensor = self.to_out(out_BHLK.transpose(1, 2).flatten(-2))
        return out


class SelfAttention(_Attention):
    """Latents attend to each other. Source: torch_brain ``RotarySelfAttention``."""

    def __init__(self, spec: ModelSpec, dropout: float) -> None:
        super().__init__(spec, spec.self_heads, dropout, rotate_value=True)
        inner = spec.self_heads * spec.dim_head
        self.norm = nn.LayerNorm(spec.dim)
        self.to_qkv = nn.Linear(spec.dim, 3 * inner, bias=False)
        self.to_out = nn.Linear(inner, spec.dim)

    def forward(self, x_BLD: Tensor, rotation: Rotation) -> Tensor:
        """(B, L, D) float32 update of the latents."""
        q, k, v = self.to_qkv(self.norm(x_BLD)).chunk(3, dim=-1)
        return self._attend(q, k, v, rotation, rotation, None)


class GEGLU(nn.Module):
    """``x * gelu(gates)`` of the two halves of the last axis (arXiv 2002.05202)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2C) → (..., C)."""
        value, gates = x.chunk(2, dim=-1)
        return value * functional.gelu(gates)


class FeedForward(nn.Module):
    """Linear → GEGLU → dropout → linear; its keys are ``net.0`` and ``net.3``."""

    def __init__(self, spec: ModelSpec, dropout: float) -> None:
        super().__init__()
        hidden = spec.dim * spec.ffn_mult
        self.net = nn.Sequential(
            nn.Linear(spec.dim, 2 * hidden),
            GEGLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, spec.dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        out: Tensor = self.net(x)
        return out


def _feed_forward(spec: ModelSpec, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(spec.dim), FeedForward(spec, dropout))


class POYO(nn.Module):
    """The POYO model. Keys, shapes and results equal torch_brain's ``POYO``.

    Args:
        spec: sizes and time window.
        unit_ids: names of the units, in the order of rows 1, 2, … of the unit table.
        session_ids: names of the sessions, in the order of their rows.
        ffn_dropout, lin_dropout, atn_dropout: dropout rates while training.
        emb_init_std: standard deviation of newly drawn embeddings.
        t_min: shortest period of the rotary time embeddings, seconds.
    """

    def __init__(
        self,
        spec: ModelSpec,
        unit_ids: Iterable[str],
        session_ids: Iterable[str],
        *,
        ffn_dropout: float = 0.2,
        lin_dropout: float = 0.4,
        atn_dropout: float = 0.0,
        emb_init_std: float = 0.02,
        t_min: float = 1e-4,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.unit_emb = VocabEmbedding(unit_ids, spec.dim, emb_init_std)
        self.session_emb = VocabEmbedding(session_ids, spec.dim, emb_init_std)
        self.token_type_emb = nn.Embedding(4, spec.dim)
        self.latent_emb = nn.Embedding(spec.latents_per_step, spec.dim)
        nn.init.normal_(self.token_type_emb.weight, std=emb_init_std)
        nn.init.normal_(self.latent_emb.weight, std=emb_init_std)
        self.rotary_emb = RotaryTimeEmbedding(spec.dim_head, spec.rotating_pairs, t_min)
        self.dropout = nn.Dropout(lin_dropout)
        self.enc_atn = CrossAttention(spec, atn_dropout, rotate_value=True)
        self.enc_ffn = _feed_forward(spec, ffn_dropout)
        self.proc_layers = nn.ModuleList(
            nn.Sequential(SelfAttention(spec, atn_dropout), _feed_forward(spec, ffn_dropout))
            for _ in range(spec.depth)
        )
        self.dec_atn = CrossAttention(spec, atn_dropout, rotate_value=False)
        self.dec_ffn = _feed_forward(spec, ffn_dropout)
        self.readout = nn.Linear(spec.dim, spec.dim_out)

    def forward(
        self,
        *,
        input_unit_index: Tensor,
        input_timestamps: Tensor,
        input_token_type: Tensor,
        input_mask: Tensor | None = None,
        latent_index: Tensor,
        latent_timestamps: Tensor,
        session_index: Tensor,
        output_timestamps: Tensor,
    ) -> Tensor:
        """Predictions in the model's scale, (B, Q, O) float32.

        Args:
            input_unit_index: (B, N) int64, rows of the unit table.
            input_timestamps: (B, N) float, seconds from the start of the window.
            input_token_type: (B, N) int64; 0 spike, 1 start, 2 end.
            input_mask: (B, N) bool, False for padding; None when nothing is padded.
            latent_index: (B, L) int64, rows of the latent table.
            latent_timestamps: (B, L) float, seconds.
            session_index: (B,) int64, rows of the session table.
            output_timestamps: (B, Q) float, seconds.
        """
        latents_BLD = self.latent_emb(latent_index)
        latent_rotation = self.rotary_emb(latent_timestamps)
        tokens = (input_unit_index, input_token_type, input_timestamps)
        latents_BLD = latents_BLD + self._encoded(latents_BLD, latent_rotation, tokens, input_mask)
        latents_BLD = latents_BLD + self.enc_ffn(latents_BLD)
        for layer in self.proc_layers:
            attention, feed_forward = layer[0], layer[1]  # type: ignore[index]
            latents_BLD = latents_BLD + self.dropout(attention(latents_BLD, latent_rotation))
            latents_BLD = latents_BLD + self.dropout(feed_forward(latents_BLD))

        queries_BQD = self.session_emb(session_index).unsqueeze(1)
        queries_BQD = queries_BQD.expand(-1, output_timestamps.size(1), -1)
        queries_BQD = queries_BQD + self.dec_atn(
            queries_BQD, latents_BLD, self.rotary_emb(output_timestamps), latent_rotation
        )
        prediction: Tensor = self.readout(queries_BQD + self.dec_ffn(queries_BQD))
        return prediction

    def _encoded(
        self,
        latents_BLD: Tensor,
        latent_rotation: Rotation,
        tokens: tuple[Tensor, Tensor, Tensor],
        mask_BN: Tensor | None,
    ) -> Tensor:
        """What the latents take from the tokens; while training, by their distinct kinds."""
        unit_BN, type_BN, time_BN = tokens
        if not self.training:
            inputs_BND = self.unit_emb(unit_BN) + self.token_type_emb(type_BN)
            rotation = self.rotary_emb(time_BN)
            plain: Tensor = self.enc_atn(
                latents_BLD, inputs_BND, latent_rotation, rotation, mask_BN
            )
            return plain
        codes_R, kind_BN = kinds(unit_BN, type_BN, len(self.unit_emb.weight))
        table_RD = self.unit_emb(codes_R // TYPES) + self.token_type_emb(codes_R % TYPES)
        omega_P = self.rotary_emb.omega[: self.rotary_emb.rotating_pairs]
        return self.enc_atn.from_table(
            latents_BLD, table_RD, kind_BN, time_BN, omega_P, latent_rotation, mask_BN
        )
