"""Files that labs already have → recordings. For a workstation: nothing on the device needs it.

Start with ``open_source``, which recognises a file, and ``convert``, which writes the recording.
"""

from poyo_edge.converting.convert import ConvertOptions, convert, describe
from poyo_edge.converting.opening import open_source
from poyo_edge.converting.source import Series, Source

__all__ = ["ConvertOptions", "Series", "Source", "convert", "describe", "open_source"]
