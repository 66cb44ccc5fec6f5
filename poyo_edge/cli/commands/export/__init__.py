"""From a checkpoint to an artifact that its devices can use."""
