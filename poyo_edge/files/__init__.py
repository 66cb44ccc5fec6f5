"""Files that are never half there, and readers that trust nothing."""
