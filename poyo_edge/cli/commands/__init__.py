"""A file for each command, in the folder of its panel in ``--help``."""
