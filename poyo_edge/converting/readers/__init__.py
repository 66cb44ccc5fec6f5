"""Formats with a file of their own, and what the readers of others are made of."""
