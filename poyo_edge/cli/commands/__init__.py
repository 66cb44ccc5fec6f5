"""A file for each command, its text for people in it or beside it."""
