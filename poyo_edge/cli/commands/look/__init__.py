"""Commands that say what something is, and how well it decodes."""
