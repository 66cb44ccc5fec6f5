"""Device side: spike stream → tokens → backend → decoded value. numpy and one backend only."""

from poyo_edge.runtime.backends import list_backends
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.failsafe import FailsafeSettings, Status
from poyo_edge.runtime.health import HealthSettings
from poyo_edge.runtime.result import DecoderSettings, Result

__all__ = [
    "Decoder",
    "DecoderSettings",
    "FailsafeSettings",
    "HealthSettings",
    "Result",
    "Status",
    "list_backends",
]
