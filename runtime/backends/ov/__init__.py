"""OpenVINO on x86 processors."""
