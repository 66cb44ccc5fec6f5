"""Feeds that bring trials and the cursor alone, of systems whose spikes another feed brings."""
