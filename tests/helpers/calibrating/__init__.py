"""New sessions to calibrate."""
