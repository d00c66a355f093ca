"""Entry point of ``python -m assay``."""

import os
import sys

if __name__ == "__main__":
    if sys.path[:1] in ([""], [os.getcwd()]):  # of -m; the current folder may come with a downloaded model
        del sys.path[0]
    from assay.cli import main

    sys.exit(main())
