"""Between the decoder and the cursor: what is done with a value, and what became of it."""
