"""What a rig does in the morning, simulated: from observation to a session that was used."""
