"""A row says what it needs, and loads what it names when it is asked."""

from __future__ import annotations

import pytest

from poyo_edge.errors import MissingExtraError
from poyo_edge.tables import Row


def test_a_row_without_a_library_is_there_and_needs_no_command() -> None:
    row = Row(help="joins", load="posixpath:join")
    assert (row.present, row.install) == (True, "")
    assert row.loaded("joining")("a", "b") == "a/b"


def test_a_row_without_its_library_says_the_command_before_anything_is_imported() -> None:
    row = Row(help="", load="no_such_module:open", extra="lsl", package="no_such_package")
    assert (row.present, row.install) == (False, "pip install pylsl")
    with pytest.raises(MissingExtraError, match=r"a feed needs .* pip install pylsl"):
        row.loaded("a feed")
