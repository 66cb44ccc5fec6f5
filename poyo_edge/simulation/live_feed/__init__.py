"""A simulated person in real time, as a feed of a rig."""
