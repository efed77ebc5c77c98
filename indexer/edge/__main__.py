"""The index process' entry: `python -m indexer.edge FOLDER OPTIMIZE_AFTER`."""

import sys

from indexer.edge.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
