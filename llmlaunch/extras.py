"""The optional parts of an installation (``pip install 'llmlaunch[NAME]'``): what each brings, who needs it, what is missing.

The plain package launches, supervises and routes. Which process needs more is a pure decision over its command line and its
environment (:func:`needed_by`). What an interpreter lacks is asked of that interpreter (:func:`missing`), because a process
may run in another one than this; nothing of what is looked for gets imported, which for torch would take seconds.
"""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ANSWER_S = 20.0
"""Seconds that an interpreter may take to look for modules; a cold disk or a network drive is slow."""
TRACE_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Extra:
    """One of ``[project.optional-dependencies]``. ``modules`` are what its packages are imported as."""

    name: str
    purpose: str
    """Who needs it, as the beginning of a sentence."""
    modules: tuple[str, ...]


WORKER = Extra(
    "worker",
    "the built-in engine",
    (
        "torch",
        "transformers",
        "accelerate",
        "safetensors",
        "gguf",
        "llguidance",
        "jinja2",
        "fastapi",
        "prometheus_client",
    ),
)
OTEL = Extra("otel", "sending traces", ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"))
LLAMACPP = Extra("llamacpp", "llama.cpp without a llama-server on the PATH", ("xllamacpp",))
MODELSCOPE = Extra("modelscope", "models from ModelScope", ("modelscope",))


@dataclass(frozen=True, slots=True)
class Missing:
    """An interpreter without the modules of an extra."""

    extra: Extra
    python: str
    modules: tuple[str, ...]
    has_pip: bool = True

    @property
    def message(self) -> str:
        """What needs which modules, and where they are missing."""
        return f"{self.extra.purpose} needs {', '.join(self.modules)}, which {self.python} does not have"

    @property
    def command(self) -> str:
        """The command line, quoted for a shell, that installs the extra into that interpreter."""
        return install_command(self.extra, self.python, has_pip=self.has_pip)


def install_command(extra: Extra, python: str, *, has_pip: bool = True) -> str:
    """The command line, quoted for a shell, that installs ``extra`` into ``python``. Environments made by uv have no pip."""
    package = f"llmlaunch[{extra.name}]"
    if has_pip:
        return shlex.join((python, "-m", "pip", "install", package))
    return shlex.join(("uv", "pip", "install", "--python", python, package))


def command_here(extra: Extra) -> str:
    """:func:`install_command` for the interpreter that runs this."""
    return install_command(extra, sys.executable, has_pip=not absent(("pip",)))


def needed_by(argv: Sequence[str], environ: Mapping[str, str]) -> Extra | None:
    """The extra without which the process ``argv`` would fail, or not do what ``environ`` asks of it."""
    if tuple(argv[1:3]) == ("-m", "llmlaunch.llamacpp"):
        return LLAMACPP
    if tuple(argv[1:3]) != ("-m", "llmlaunch") or len(argv) < 4:
        return None
    if argv[3] == "worker":
        return WORKER
    return OTEL if argv[3] == "api" and traces_wanted(environ) else None


def traces_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the usual OTEL_* variables name a place for traces, and do not turn them off."""
    if not any(environ.get(name) for name in TRACE_ENDPOINTS):
        return False
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and environ.get("OTEL_TRACES_EXPORTER") != "none"


def absent(modules: Iterable[str]) -> list[str]:
    """Those of ``modules`` that this interpreter would not find. None of them is imported, but the parents of dotted ones are."""
    found = []
    for name in modules:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # of its parent; of something that only pretends to be a module
            spec = None
        # A folder without an __init__.py, as uninstalling may leave behind, counts as a package but holds nothing.
        if spec is None or spec.origin is None:
            found.append(name)
    return found


def missing(extra: Extra, python: str, *, environ: Mapping[str, str], cwd: str) -> Missing | None:
    """What ``python`` lacks of ``extra`` when it is started with ``environ`` in ``cwd``; None: nothing.

    An interpreter that cannot be started, or does not answer within ANSWER_S, is taken to have everything: its process will
    tell more about that than can be told here.
    """
    asked = ("llmlaunch", *extra.modules)
    lacks = absent_there(("pip", *asked), python, environ=environ, cwd=cwd)
    modules = tuple(name for name in asked if name in lacks)
    return Missing(extra, python, modules, has_pip="pip" not in lacks) if modules else None


def absent_there(modules: Iterable[str], python: str, *, environ: Mapping[str, str], cwd: str) -> list[str]:
    """Those of ``modules`` that ``python`` would not find when it is started with ``environ`` in ``cwd``.

    Empty if it cannot be started, or does not answer within ANSWER_S.
    """
    import inspect  # a verb that does not plan need not pay for it

    program = (
        "from __future__ import annotations\nimport importlib.util, sys\n"
        + inspect.getsource(absent)
        + "\nprint(*absent(sys.argv[1:]))"
    )
    try:
        done = subprocess.run(
            [python, "-c", program, *modules],
            env=dict(environ),
            cwd=cwd or None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return []
    return done.stdout.split()


_PACKAGES = {
    "vllm": "vllm",
    "sglang": "sglang",
    "infinity_emb": "infinity-emb[all]",
    "llama_cpp": "llama-cpp-python[server]",
}
"""What brings the engine whose module or program has this name."""


def how_to_install(name: str, python: str = "") -> str:
    """The command that installs the module or program ``name``, into ``python`` if that is given; empty if none is known."""
    if name == "llama-server":
        return "build or download llama.cpp, or pip install 'llmlaunch[llamacpp]'"
    package = _PACKAGES.get(name)
    return shlex.join((*((python, "-m") if python else ()), "pip", "install", package)) if package else ""


def engine_module(argv: Sequence[str]) -> str:
    """The package of ``python -m PACKAGE.MODULE …`` if it is that of an engine; empty for anything else."""
    package = argv[2].partition(".")[0] if len(argv) > 2 and argv[1] == "-m" else ""
    return package if package in _PACKAGES else ""
