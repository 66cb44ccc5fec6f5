"""Commands that run where the decoder runs; they need no torch."""
