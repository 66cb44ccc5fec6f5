"""``poyo-edge build``: engines, or what is left to do for them. Torch-free: it runs on devices."""
