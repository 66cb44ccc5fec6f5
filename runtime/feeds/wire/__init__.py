"""How others write to us: addresses that people type, bytes that peers send."""
