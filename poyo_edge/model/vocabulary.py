"""Embedding tables whose rows carry names, as torch_brain writes them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from poyo_edge.errors import UsageError

NOT_AVAILABLE = "NA"
"""The reserved word of every vocabulary; its row 0 is used for padding."""


class VocabEmbedding(nn.Embedding):
    """An embedding table whose rows carry names.

    Its ``state_dict`` holds ``weight`` (U, D) and ``vocab`` (name → row), as torch_brain's
    ``InfiniteVocabEmbedding`` writes them. Row 0 is the word "NA" and stays zero.
    """

    def __init__(self, words: Iterable[str], dim: int, init_std: float = 0.02) -> None:
        self.vocab = vocabulary(words)
        self.init_std = init_std
        super().__init__(len(self.vocab), dim, padding_idx=0)

    def reset_parameters(self) -> None:
        """Draw all rows from N(0, init_std²), but row 0."""
        nn.init.normal_(self.weight, std=self.init_std)
        with torch.no_grad():
            self.weight[0].zero_()

    def rows(self, words: Iterable[str]) -> list[int]:
        """Rows of the words.

        Raises:
            UsageError: a word is not in the vocabulary.
        """
        try:
            return [self.vocab[word] for word in words]
        except KeyError as error:
            raise UsageError(
                f"vocabulary: expected one of {len(self.vocab)} known ids, got {error.args[0]!r}"
            ) from None

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "vocab"] = OrderedDict(self.vocab)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        key = prefix + "vocab"
        without_vocab = {k: v for k, v in state_dict.items() if k != key}
        super()._load_from_state_dict(without_vocab, prefix, *args)
        unexpected: list[str] = args[3]
        if key in unexpected:
            unexpected.remove(key)
        if key in state_dict and dict(state_dict[key]) != self.vocab:
            args[4].append(f"{key}: the names or their rows differ from this model's")


def vocabulary(words: Iterable[str]) -> dict[str, int]:
    """Name → row, with "NA" at row 0 and the words in their order from row 1.

    Raises:
        UsageError: a word occurs twice or is "NA".
    """
    vocab = {NOT_AVAILABLE: 0}
    for word in words:
        if word in vocab:
            raise UsageError(f"vocabulary: expected unique ids other than 'NA', got {word!r} again")
        vocab[word] = len(vocab)
    return vocab
