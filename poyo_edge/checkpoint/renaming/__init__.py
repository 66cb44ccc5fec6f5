"""Keys that others gave to the weights → those of today: a file for each, loaded by its layout."""
