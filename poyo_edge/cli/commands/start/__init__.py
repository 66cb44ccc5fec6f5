"""Recordings, and models from them."""
