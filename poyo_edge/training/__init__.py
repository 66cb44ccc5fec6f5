"""Training of POYO: recipes, sources of recordings, windows, and runs on one or many devices."""

from __future__ import annotations

from poyo_edge.errors import MissingExtraError
from poyo_edge.training.recipe import Recipe, Source
from poyo_edge.training.recipe_file import load_recipe, recipe_names

try:
    from poyo_edge.training.run import TrainingResult, train
except MissingExtraError:
    raise
except ImportError as error:
    package = (error.name or "lightning").partition(".")[0]
    raise MissingExtraError(package, "train", "training or evaluating") from error

__all__ = ["Recipe", "Source", "TrainingResult", "load_recipe", "recipe_names", "train"]
