"""Device side: spike stream → tokens → backend → decoded value. numpy and one backend only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poyo_edge.tables import lazily

if TYPE_CHECKING:
    from poyo_edge.runtime.backends import list_backends
    from poyo_edge.runtime.decoder import Decoder
    from poyo_edge.runtime.failsafe import FailsafeSettings, Status
    from poyo_edge.runtime.health import HealthSettings
    from poyo_edge.runtime.result import DecoderSettings, Result

_WHERE = {
    "Decoder": "poyo_edge.runtime.decoder",
    "DecoderSettings": "poyo_edge.runtime.result",
    "FailsafeSettings": "poyo_edge.runtime.failsafe",
    "HealthSettings": "poyo_edge.runtime.health",
    "Result": "poyo_edge.runtime.result",
    "Status": "poyo_edge.runtime.failsafe",
    "list_backends": "poyo_edge.runtime.backends",
}
__all__ = [
    "Decoder",
    "DecoderSettings",
    "FailsafeSettings",
    "HealthSettings",
    "Result",
    "Status",
    "list_backends",
]

__getattr__ = lazily(__name__, _WHERE)
