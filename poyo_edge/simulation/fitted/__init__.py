"""Simulated arrays that fire as given ones do."""
