"""Frames of a running loop in shared memory: written by the loop, read by any process beside it.

``layout`` says where everything lies, ``memory`` how the file is found and whose it is, ``writer``
and ``reader`` are its two ends, ``state`` is the slow part of it. None imports what decodes.
"""
