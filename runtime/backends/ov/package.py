"""The package openvino: its version, and its import without a message to anyone."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

from poyo_edge.errors import MissingExtraError


def openvino_version() -> str:
    """The version of the package, or "" where it is not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return ""


def openvino_package() -> Any:
    """OpenVINO, without the message to Google Analytics that its import sends.

    It sends none where ``openvino_telemetry`` cannot be imported.
    """
    silent = "openvino" in sys.modules or "openvino_telemetry" in sys.modules
    if not silent:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
        import openvino.opset13
    except ImportError:
        raise MissingExtraError("openvino", "openvino", "the OpenVINO backend") from None
    finally:
        if not silent:
            del sys.modules["openvino_telemetry"]
    return openvino
