"""Recalibration while a person uses the cursor freely, from targets that are inferred."""
