"""Does what was exported or built say what the checkpoint's own model says?"""
