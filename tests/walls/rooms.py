"""Which room may import which. ``tests/unit/test_walls.py`` compares this table with the source, both ways.

A room that is new gets a line here; an import between two rooms that is not here fails, and so does a word that no
import needs any more. Before a word is added: could what is needed come in as an argument, or move to where both see it?
"""

from __future__ import annotations

MAY_IMPORT: dict[str, str] = {
    # Leaves: small rules, values and names.
    "llmlaunch": "",
    "errors": "",
    "extras": "",
    "common": "",
    "paths": "common errors",
    # What the user wants, what the machine has, what a model needs.
    "manifest": "common errors",
    "hardware": "common errors",
    "models/reading": "errors models",
    "models/sources": "common errors extras manifest models models/reading",
    "models": "errors manifest models/reading models/sources",
    # The plan.
    "engines/flag_tables": "",
    "engines": "common engines/flag_tables manifest models",
    "planning": "common engines errors hardware manifest models",
    # Other APIs, translated to OpenAI's and back.
    "anthropic": "",
    # HTTP of our own processes, on uvicorn.
    "http_server": "common errors hardware",
    # Processes.
    "control": "common errors llmlaunch paths planning",
    "supervision/core": "common planning",
    "supervision/gpu": "common hardware paths",
    "supervision/health": "common planning supervision supervision/core supervision/logs",
    "supervision/logs": "common paths supervision/processes",
    "supervision/processes": "common control errors hardware paths supervision supervision/logs",
    "supervision": """
        common control controller errors hardware http_server llmlaunch manifest models/sources paths planning
        supervision/core supervision/gpu supervision/health supervision/logs supervision/processes
    """,
    # An engine that needs a program of ours.
    "llamacpp": "errors manifest models models/sources",
    "other_deployments": "control errors hardware planning",
    "installed_engines": "manifest models planning",
    "assemble": """
        control engines errors extras hardware installed_engines manifest models models/reading other_deployments
        planning supervision/gpu
    """,
    # Requests: who serves what, and the one endpoint.
    "controller": "common errors http_server",
    "gateway/multiprocess": "common errors http_server",
    "gateway/http1": "common errors gateway http_server",
    "gateway/payload": "gateway gateway/http1",
    "gateway/dialects": "anthropic gateway gateway/payload",
    "gateway/ollama": "gateway gateway/dialects gateway/payload gateway/routing",
    "gateway/limits": "errors gateway gateway/multiprocess",
    "gateway/routing/health": "common gateway gateway/multiprocess gateway/routing",
    "gateway/routing": """
        common controller errors gateway gateway/multiprocess gateway/payload gateway/routing/health paths
    """,
    "gateway/fastchat": "common gateway gateway/http1 gateway/payload",
    "gateway/exchange": """
        controller gateway gateway/dialects gateway/fastchat gateway/http1 gateway/limits gateway/observe gateway/payload gateway/routing
        gateway/routing/health
    """,
    "gateway/observe": "extras gateway gateway/multiprocess llmlaunch",
    "gateway": """
        common errors gateway/dialects gateway/exchange gateway/http1 gateway/limits gateway/multiprocess gateway/observe
        gateway/ollama gateway/payload gateway/routing gateway/routing/health http_server
    """,
    # The built-in engine.
    "worker/chat_template": "",
    "worker/tokenization": "worker worker/chat_template",
    "worker/output/tool_calls": "common worker/output",
    "worker/output": "worker",
    "worker/kv": "models/reading worker",
    "worker/compute": "common hardware paths worker worker/kv",
    "worker/engine": "worker worker/compute worker/kv worker/output worker/tokenization",
    "worker/loading": """
        common errors hardware manifest models models/sources paths worker worker/compute worker/engine worker/kv worker/output
        worker/output/tool_calls worker/tokenization
    """,
    "worker/api/generation": "worker worker/api worker/engine worker/loading worker/tokenization",
    "worker/api/chat": """
        worker worker/api worker/api/generation worker/loading worker/output worker/output/tool_calls worker/tokenization
    """,
    "worker/api/completions": "worker worker/api worker/api/generation worker/loading worker/tokenization",
    "worker/api/responses": "controller worker worker/api worker/api/chat worker/api/generation worker/loading",
    "worker/api/messages": """
        anthropic worker worker/api worker/api/chat worker/api/generation worker/loading
    """,
    "worker/api": """
        anthropic common llmlaunch models worker worker/api/chat worker/api/completions worker/api/generation
        worker/api/messages worker/api/responses
        worker/engine worker/loading worker/tokenization
    """,
    "worker": "common controller errors http_server manifest worker/api worker/api/generation worker/loading",
    # The command line.
    "cli/display": "cli cli/deploy common control errors paths supervision/logs",
    "cli/talk": "cli cli/deploy cli/display common control errors gateway/limits hardware planning",
    "cli/deploy": """
        assemble cli/display cli/talk common control errors gateway/http1 gateway/limits manifest paths planning
        supervision/processes
    """,
    "cli": """
        assemble cli/deploy cli/display cli/talk common control controller errors extras gateway gateway/http1
        gateway/limits gateway/routing hardware http_server llmlaunch manifest planning worker worker/compute
        worker/loading
    """,
    "__main__": "cli",
}

PURE_ROOMS = (
    "anthropic",
    "engines",
    "planning",
    "supervision/core",
    "worker/output",
    "worker/output/tool_calls",
)
"""Rooms of which every module is pure. Elsewhere a module says so in its docstring: "Pure."."""

IMPURE = {
    "asyncio", "concurrent", "fastapi", "filelock", "http", "httptools", "httpx", "logging", "multiprocessing", "os",
    "psutil", "pynvml", "random", "requests", "rich", "secrets", "selectors", "shutil", "signal", "socket", "starlette",
    "subprocess", "sys", "tempfile", "threading", "time", "torch", "transformers", "typer", "urllib.request", "uvicorn",
    "yaml",
}  # fmt: skip
"""What reads a clock, draws lots, speaks to the system or takes long. Time, chance and I/O come in as arguments."""
HARMLESS = {"http.HTTPStatus"}
"""Names in those libraries that are values alone."""
EFFECTS = {"open", "input", "print", "exit", "quit"}
"""Builtins that no pure module calls."""

ONE_HOME = {
    "torch": "worker/",
    "transformers": "worker/",
    "pynvml": "hardware/nvml.py",
    "rich": "cli/",
    "typer": "cli/",
}
"""Libraries that one room or module alone imports."""


def may_import(room: str) -> tuple[str, ...]:
    """The rooms that ``room`` may import, beside itself."""
    return tuple(MAY_IMPORT[room].split())
