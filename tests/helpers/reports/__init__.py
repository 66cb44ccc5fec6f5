"""Reports: what they are made of, and how tests read them."""
