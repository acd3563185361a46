"""Print the table of rooms: what each is, how large, and what it may import."""

from __future__ import annotations

import textwrap

from tests.walls import source
from tests.walls.rooms import MAY_IMPORT, may_import

WIDTH = 118
INDENT = " " * 4


def main() -> None:
    modules = source.read()
    for room in MAY_IMPORT:
        inside = [module for module in modules.values() if module.room == room]
        count = "1 module" if len(inside) == 1 else f"{len(inside)} modules"
        print(f"{room}  ({count}, {sum(module.lines for module in inside)} lines)")
        print(
            textwrap.fill(source.about(room, modules), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
        )
        words = ", ".join(may_import(room)) or "nothing of ours"
        print(
            textwrap.fill("may import " + words, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT * 2)
        )


if __name__ == "__main__":
    main()
