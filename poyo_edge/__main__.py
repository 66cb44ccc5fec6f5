"""``python -m poyo_edge``: the command line, where its name is not on PATH."""

from poyo_edge.cli import main

if __name__ == "__main__":
    main()
