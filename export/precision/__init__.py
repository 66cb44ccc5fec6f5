"""Mixed precision: a named pass, its FP32 islands, and emulated rounding."""
