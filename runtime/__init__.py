"""Device side: spike stream → tokens → backend → decoded value. numpy and one backend only."""

from poyo_edge.runtime.backends import list_backends
from poyo_edge.runtime.decoder import Decoder, DecoderSettings, Result
from poyo_edge.runtime.failsafe import FailsafeSettings, Status

__all__ = [
    "Decoder",
    "DecoderSettings",
    "FailsafeSettings",
    "Result",
    "Status",
    "list_backends",
]
