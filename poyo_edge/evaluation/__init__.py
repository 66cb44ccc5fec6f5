"""How well models decode, beside baselines, and how that grows with sessions and size."""

from __future__ import annotations

from poyo_edge.errors import MissingExtraError

try:
    from poyo_edge.evaluation.evaluate import PROTOCOLS, EvaluationSettings, evaluate
except MissingExtraError:
    raise
except ImportError as error:
    package = (error.name or "torch").partition(".")[0]
    raise MissingExtraError(package, "train", "evaluation") from error

__all__ = ["PROTOCOLS", "EvaluationSettings", "evaluate"]
