"""Make docs/img/*.svg from what the program really prints.

Run: ``python docs/make_pictures.py``. It serves examples/quickstart.yaml in a home of its own, on a pseudo terminal, and takes
everything down again. Half a minute.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llmlaunch import paths

ROOT = Path(__file__).parents[1]
COLUMNS, ROWS = 118, 40
DEADLINE_S = 180
_WEB_FONT = re.compile(r"@font-face \{[^}]*\}\s*")
_SEQUENCE = re.compile(r"\x1b\[(\?25[lh]|1A|2K)|(\r)|(\n)")


class Terminal:
    """A verb on a pseudo terminal, and what stands on that terminal."""

    def __init__(self, home: str, *words: str) -> None:
        self._main, end = os.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
        env = {**os.environ, "LLMLAUNCH_HOME": home, "LLMLAUNCH_CACHE": str(paths.cache_root())}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmlaunch", *words],
            stdin=end,
            stdout=end,
            stderr=end,
            cwd=ROOT,
            env={**env, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )
        os.close(end)
        os.set_blocking(self._main, False)
        self._bytes = b""

    def until(self, word: str) -> str:
        """What was printed, once ``word`` is in it (or, with "", once the verb has ended)."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            over = self.process.poll() is not None
            try:
                self._bytes += os.read(self._main, 65536)
            except BlockingIOError:
                pass
            except OSError:  # the other end is closed
                over = True
            text = self._bytes.decode(errors="replace")
            if over or (word and word in text):
                return text
            time.sleep(0.02)
        raise SystemExit(f"{word!r} did not appear:\n{self._bytes.decode(errors='replace')}")


def screen(printed: str) -> list[str]:
    """The lines that stand on the terminal at the end: as much of its language as rich's live display speaks."""
    lines, row, at = [""], 0, 0
    for match in _SEQUENCE.finditer(printed):
        lines[row] += printed[at : match.start()]
        at = match.end()
        if match[3]:
            row += 1
            if row == len(lines):
                lines.append("")
        elif match[1] == "1A":
            row = max(0, row - 1)
        elif match[1] == "2K":
            lines[row] = ""
    lines[row] += printed[at:]
    return lines


def picture(name: str, command: str, printed: str) -> None:
    """Write docs/img/``name``.svg: a prompt with ``command``, and below what it printed."""
    lines = screen(printed)
    while lines and not lines[-1].strip():
        lines.pop()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    console.print(Text.from_ansi("\n".join(lines)), soft_wrap=True)
    folder = ROOT / "docs" / "img"
    folder.mkdir(exist_ok=True)
    svg = console.export_svg(title="llmlaunch", unique_id=f"llmlaunch-{name}")
    # Rich points at a font on the web; a picture in a README fetches nothing.
    (folder / f"{name}.svg").write_text(_WEB_FONT.sub("", svg))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="llmlaunch-pictures-") as home:
        up = Terminal(home, "up", "examples/quickstart.yaml")
        try:
            picture("up", "llmlaunch up examples/quickstart.yaml", up.until("]}'"))
            picture("status", "llmlaunch status", Terminal(home, "status").until(""))
        finally:
            up.process.send_signal(signal.SIGINT)
            up.until("")
            up.process.wait()


if __name__ == "__main__":
    main()
