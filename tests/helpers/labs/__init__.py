"""Files and folders that single makers and tools write."""
