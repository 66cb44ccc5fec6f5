"""How many processors torch uses at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads for a while; None leaves it as it is.

    Threads of a small network wait for each other most of the time, and far longer where other
    programs use the processors too: for those, one is best.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)
