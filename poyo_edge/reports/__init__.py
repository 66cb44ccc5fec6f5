"""Reports: one self-contained page each, grouped by the question that each part answers."""
