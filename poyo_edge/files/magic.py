"""What files of other kinds begin with, by which they are told from ours."""

from __future__ import annotations

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
