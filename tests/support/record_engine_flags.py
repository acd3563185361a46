"""Writes ``llmlaunch/engines/flag_tables/*.py`` anew, each from what that engine's own parser says. Not shipped.

``vllm`` and ``sglang`` run in an environment that has the engine; ``llamacpp`` takes the README of llama.cpp's server, whose table
``llama-gen-docs`` prints from the program's own help; ``worker`` is the built-in one::

    /opt/vllm/bin/python tests/support/record_engine_flags.py vllm
    /opt/sglang/bin/python tests/support/record_engine_flags.py sglang
    python tests/support/record_engine_flags.py llamacpp tools/server/README.md "0c1e57098"
    python tests/support/record_engine_flags.py worker

A line of a table is one flag: its spellings, the negative ones after an exclamation mark, and what follows it on a command line:
nothing (a switch), ``=int``, ``=count`` (an integer with the engine's own units), ``=float``, ``=number`` (either, or a word), ``=text``,
``=json``, words for yes and no (``=on|off``), with ``*`` for several, ``2`` for just two and ``?`` for a value that may be missing.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parents[2] / "llmlaunch/engines/flag_tables"
_YES_AND_NO = (("on", "off"), ("true", "false"), ("1", "0"), ("yes", "no"))
_HEAD = '''"""{title}

{how}
tests/support/record_engine_flags.py writes this file, and says what its lines mean.
"""

from __future__ import annotations

VERSION = "{version}"
FLAGS = """
{flags}
"""
'''


def write(name: str, title: str, how: str, version: str, lines: Iterable[str]) -> None:
    """Write the table of engine ``name``."""
    flags = "\n".join(_in_order(lines))
    (TABLES / f"{name}.py").write_text(_HEAD.format(title=title, how=how, version=version, flags=flags))


def _in_order(lines: Iterable[str]) -> list[str]:
    return sorted(lines, key=lambda line: line.lstrip("-"))


def of_parser(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A line for each flag of an argparse parser."""
    for action in parser._actions:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            continue
        negative = [name for name in action.option_strings if _negates(name, action.option_strings)]
        names = [name for name in action.option_strings if name not in negative]
        yield _line(names, negative, _kind(action))


def _negates(name: str, names: Sequence[str]) -> bool:
    return name.startswith("--no-") and f"--{name[5:]}" in names


def _kind(action: argparse.Action) -> str:
    if action.nargs == 0 or (action.const is not None and action.type is None and action.nargs is None):
        return ""
    several = {"+": "*", "*": "*", "?": "?"}.get(str(action.nargs), "")
    if isinstance(action, argparse._AppendAction):
        several = "*"
    return (_words(map(str, action.choices or ())) or _type(action)) + several


def _words(choices: Iterable[str]) -> str:
    given = set(choices)
    return next((f"{yes}|{no}" for yes, no in _YES_AND_NO if {yes, no} <= given), "")


def _type(action: argparse.Action) -> str:
    kind: Any = action.type
    readers = list(_readers(kind))
    name = " ".join(getattr(found, "__qualname__", "") for found in readers)
    if "human_readable_int" in name:
        return "count"
    if int in readers:
        return "int"
    if float in readers:
        return "float"
    return "json" if re.search(r"loads|dataclass|union_dict|json", name) else "text"


def _readers(kind: Any) -> Iterator[Any]:
    """A converter of argparse, and what it wraps."""
    yield kind
    for cell in getattr(kind, "__closure__", None) or ():
        yield from _readers(cell.cell_contents)


def _line(names: list[str], negative: list[str], kind: str) -> str:
    return " ".join([*names, *(f"!{name}" for name in negative), *([f"={kind}"] if kind else [])])


def _with_o(lines: Iterable[str]) -> Iterator[str]:
    """vLLM's parser takes ``-O`` for ``--optimization-level`` before argparse sees it."""
    return (line.replace("--optimization-level", "--optimization-level -O") for line in lines)


def worker_lines() -> list[str]:
    """The lines of the built-in worker's table, in their order."""
    typer = importlib.import_module("typer")
    app = typer.Typer()
    app.command()(importlib.import_module("llmlaunch.cli.worker").worker)
    return _in_order(of_command(typer.main.get_command(app)))


def of_command(command: Any) -> Iterator[str]:
    """A line for each option of a command of typer."""
    for option in command.params:
        if option.name in ("help", "install_completion", "show_completion"):
            continue
        kind = getattr(option.type_descriptor.annotation, "__name__", "")
        kind = "" if option.is_flag else kind if kind in ("int", "float") else "text"
        yield _line(option.opts, option.secondary_opts, kind)


def of_readme(text: str) -> Iterator[str]:
    """A line for each flag in the tables of llama.cpp's README."""
    for cell in re.findall(r"^\| `(-.*?)` \|", text, re.M):
        plain = cell.replace("\\|", "|")
        *firsts, last = re.split(r", (?=-)", plain)
        name, _, value = last.partition(" ")
        names = [*firsts, name]
        if "--help" in names:
            continue
        cut = next((i for i, found in enumerate(names) if _negates(found, names)), len(names))
        while cut > 1 and cut < len(names) and re.match(r"-n\w|--no-", names[cut - 1]):
            cut -= 1
        yield _line(names[:cut], names[cut:], _hinted(value))


def _hinted(value: str) -> str:
    if not value:
        return ""
    if words := _words(re.findall(r"\w+", value)):
        return words
    if re.fullmatch(r"[A-Z]+ [A-Z]+", value):
        return "text2"
    return "number" if value in ("N", "PORT", "INDEX", "SEED", "P") else "text"


def main(engine: str, *rest: str) -> None:
    """Record ``engine``."""
    if engine == "vllm":
        version = importlib.import_module("vllm").__version__.partition("+")[0]
        make = importlib.import_module("vllm.entrypoints.launchers.cli_args").make_arg_parser
        new = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
        how = f"From the parser behind ``vllm serve --help=all`` of vLLM {version}, as it was installed."
        write(engine, "Flags of vLLM.", how, f"vLLM {version}", _with_o(of_parser(make(new()))))
    elif engine == "sglang":
        version = importlib.import_module("sglang.version").__version__
        parser = argparse.ArgumentParser()
        importlib.import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
        how = f"From the parser behind ``sglang serve --help`` of SGLang {version} (``ServerArgs.add_cli_args``)."
        write(engine, "Flags of SGLang.", how, f"SGLang {version}", of_parser(parser))
    elif engine == "llamacpp":
        how = (
            f"From the help that llama.cpp {rest[1]} prints into tools/server/README.md (``llama-gen-docs``)."
        )
        write(
            engine,
            "Flags of llama-server.",
            how,
            f"llama.cpp {rest[1]}",
            of_readme(Path(rest[0]).read_text()),
        )
    elif engine == "worker":
        how = "From ``llmlaunch worker``'s own options; a test compares."
        write(engine, "Flags of the built-in worker.", how, "llmlaunch worker", worker_lines())
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
