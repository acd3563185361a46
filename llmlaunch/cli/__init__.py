"""The command line: one file a verb. Each parses, makes one call, renders."""

import sys


def main() -> None:
    """Entry point of the ``llmlaunch`` command."""
    try:
        from llmlaunch.cli.app import run

        run()
    except KeyboardInterrupt:
        # Ctrl-C may come while modules are still imported; a traceback would tell nobody anything.
        sys.exit(130)
