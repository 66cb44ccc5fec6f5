"""What a person looks at while a rig runs, in a process of its own (docs/page.md)."""
