"""Checkpoint files of every layout."""
