"""How well models decode, beside baselines, and how that grows with sessions and size."""
