"""A page of the run whose ``writer`` is a fixture of the test's own file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from helpers.pages.serving import Served, Writer


@pytest.fixture
def page(writer: Writer) -> Iterator[Served]:
    from helpers.pages.serving import served

    with served(writer.frames.path) as one:
        yield one
