"""The command line: one file a verb. Each parses, makes one call, renders."""

import io
import os
import sys


def main() -> None:
    """Entry point of the ``llmlaunch`` command."""
    _fill_closed_streams()
    _take_any_text()
    if os.environ.get("COLUMNS", "").strip() == "0":
        del os.environ["COLUMNS"]  # nobody means that; tables would have no room for a single letter
    try:
        from llmlaunch.cli.app import run

        run()
    except KeyboardInterrupt:
        # Ctrl-C may come while modules are still imported; a traceback would help nobody.
        sys.exit(130)


def _fill_closed_streams() -> None:
    """Open /dev/null for standard streams that are closed (``>&-``).

    Without this, the next file or socket that is opened would take the stream's place.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))


def _take_any_text() -> None:
    r"""A file's name is bytes, and a terminal's encoding may lack a letter: neither is a reason to fail.

    What cannot be encoded is shown as its escape. Of a lone byte of a name that is not UTF-8 that is ``\udcNN``, which is how
    JSON writes it, too.
    """
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
