"""Models, their graphs, and what is put into them."""
