"""Simulated recordings of motor cortex."""
