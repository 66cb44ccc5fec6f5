"""``python -m poyo_edge.runtime.feeds.brand_node``: as graphs of 0.1 name it."""

import sys

from poyo_edge.runtime.rig.brand_node import main

if __name__ == "__main__":
    sys.exit(main())
