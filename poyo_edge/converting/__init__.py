"""Files that labs already have → recordings. For a workstation: nothing on the device needs it.

Start with ``open_source``, which recognises a file, and ``convert``, which writes the recording.
``FORMATS`` says what can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poyo_edge.converting.formats import FORMATS
from poyo_edge.tables import lazily

if TYPE_CHECKING:
    from poyo_edge.converting.opening import open_source
    from poyo_edge.converting.source import Series, Source
    from poyo_edge.converting.to_recording import ConvertOptions, convert, describe

_WHERE = {
    "ConvertOptions": "poyo_edge.converting.to_recording",
    "Series": "poyo_edge.converting.source",
    "Source": "poyo_edge.converting.source",
    "convert": "poyo_edge.converting.to_recording",
    "describe": "poyo_edge.converting.to_recording",
    "open_source": "poyo_edge.converting.opening",
}

__all__ = ["FORMATS", "ConvertOptions", "Series", "Source", "convert", "describe", "open_source"]

__getattr__ = lazily(__name__, _WHERE)
