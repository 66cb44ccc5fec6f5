"""The pictures of a page, each with its figure and how it is brought up to date."""
