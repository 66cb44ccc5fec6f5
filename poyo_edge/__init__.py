"""poyo-edge: from a POYO checkpoint to a decoder that runs beside the implant."""

__version__ = "0.1.0"
