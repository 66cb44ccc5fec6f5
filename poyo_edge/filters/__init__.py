"""Linear decoders of the field, for comparison: fitted on the same labels as a session."""
