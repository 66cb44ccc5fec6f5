"""libpoyoedge for tests: built from its sources, and called through ctypes."""
