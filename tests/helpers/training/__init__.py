"""Runs that train in seconds."""
