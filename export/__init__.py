"""Workstation side: research checkpoint → folded core → ONNX → artifact, with its parity.

``freeze_session`` runs on devices too.
"""

from poyo_edge.export.freeze import FreezeReport, freeze_session

__all__ = ["FreezeReport", "freeze_session"]
