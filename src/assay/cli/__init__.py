"""Command line: the only printing code. Results go to standard output, text for people to standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``arguments`` default to those of the process."""
    try:
        from assay.cli.app import run
        from assay.cli.failures import exit_code_of

        return exit_code_of(lambda: run(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:  # during the imports above
        sys.stderr.write("assay: interrupted\n")
        return 2
