"""`python -m reid` is `reid`."""

import sys

from reid.cli import main

if __name__ == "__main__":
    sys.exit(main())
