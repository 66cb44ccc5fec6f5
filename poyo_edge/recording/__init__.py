"""Recordings of one session: spikes and behaviour, in the HDF5 layout of torch_brain."""

from poyo_edge.recording.recording import Behavior, Recording, write_recording

__all__ = [
    "Behavior",
    "Recording",
    "write_recording",
]
