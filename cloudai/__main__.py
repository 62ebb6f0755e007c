"""``python -m cloudai`` is the executable ``cloudai``."""

import sys

from cloudai.cli import main

if __name__ == "__main__":
    sys.exit(main())
