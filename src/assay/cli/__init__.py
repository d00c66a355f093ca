"""The command line: the only room that prints. Answers go to standard output, text for people to standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``arguments`` default to the process's own."""
    try:
        from assay.cli.app import run
        from assay.cli.failures import guarded

        return guarded(lambda: run(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:  # while the above was being imported
        sys.stderr.write("assay: interrupted\n")
        return 2
