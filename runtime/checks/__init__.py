"""What is asked of a decoder before anyone relies on it: replay, verify, bench, load."""
