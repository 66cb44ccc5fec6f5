"""Workstation side: research checkpoint → folded core → ONNX → artifact, with its parity.

``freeze_session`` and ``build_engines`` run on devices too. What needs torch or much else is loaded
when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poyo_edge.errors import imported
from poyo_edge.export.freeze import FreezeReport, freeze_session

if TYPE_CHECKING:
    from poyo_edge.export.engines.build import build_engines
    from poyo_edge.export.engines.options import BuildOptions
    from poyo_edge.export.pipeline import ExportOptions as ExportOptions
    from poyo_edge.export.pipeline import ExportReport as ExportReport
    from poyo_edge.export.pipeline import export_checkpoint as export_checkpoint

# What needs torch is not listed, so that a device can import all that is.
__all__ = ["BuildOptions", "FreezeReport", "build_engines", "freeze_session"]

_LATER = {
    "BuildOptions": "poyo_edge.export.engines.options",
    "build_engines": "poyo_edge.export.engines.build",
    "ExportOptions": "poyo_edge.export.pipeline",
    "ExportReport": "poyo_edge.export.pipeline",
    "export_checkpoint": "poyo_edge.export.pipeline",
}
"""Name → the module that has it, loaded when it is first asked for."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(imported(_LATER[name], "export", name), name)
