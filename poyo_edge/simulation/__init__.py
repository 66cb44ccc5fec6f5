"""Simulated recordings of motor cortex."""

from poyo_edge.simulation.recordings import Simulation, simulate_recording, simulate_study

__all__ = ["Simulation", "simulate_recording", "simulate_study"]
