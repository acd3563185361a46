"""The walls of docs/explanation/architecture.md: which room may import what. Read from the source, so nothing has to run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "llmlaunch"
PURE_COMMON = (
    "addresses",
    "backoff",
    "browser_guard",
    "deployment_name",
    "dispatch_methods",
    "heartbeat",
    "spelling",
    "variables",
)
"""The modules of ``common`` that pure rooms may use, being pure themselves."""
PURE_ROOMS = (
    *(f"common/{name}.py" for name in PURE_COMMON),
    "planning",
    "engines",
    "supervision/core",
    "supervision/credentials.py",
    "controller/registry.py",
    "controller/dispatch.py",
    "controller/grants.py",
    "controller/response_ids.py",
    "gateway/routing/affinity.py",
    "gateway/http1/body_memory.py",
    "gateway/routing/route_table.py",
    "gateway/routing/choice.py",
    "gateway/fastchat/response_translation.py",
    "gateway/fastchat/request_translation.py",
    "gateway/fastchat/conversation.py",
    "gateway/limits/rates.py",
    "gateway/routing/replica_health.py",
    "gateway/routing/silence.py",
    "gateway/routing/suspects.py",
    "gateway/multiprocess/loop_liveness.py",
    "gateway/payload/usage.py",
    "gateway/routing/request_queue.py",
)
IMPURE = {
    "asyncio", "concurrent", "http", "httpx", "httptools", "logging", "multiprocessing", "os", "psutil", "pynvml",
    "random", "requests", "secrets", "selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading",
    "time", "torch", "transformers", "urllib.request", "uvicorn", "fastapi", "starlette", "typer", "rich", "yaml",
}  # fmt: skip
# A room may use the rooms before it: what the user wants, what the machine has, what a model needs -> plan -> processes.
ROOMS_PURE_CODE_MAY_SEE = (
    *(f"common.{name}" for name in PURE_COMMON),
    "errors",
    "manifest.types",
    "hardware.types",
    "models.facts",
    "engines",
    "planning",
)
ONE_HOME = {
    "torch": "worker/",
    "transformers": "worker/",
    "pynvml": "hardware/nvml.py",
    "rich": "cli/",
    "typer": "cli/",
}
CALLS_THAT_PRINT_OR_EXIT = {"print", "exit", "quit"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names imported anywhere in the module, functions included, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import hides its room"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def is_or_inside(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def pure_modules() -> list[Path]:
    found = [m for m in modules() if any(room(m) == r or room(m).startswith(r + "/") for r in PURE_ROOMS)]
    assert found
    return found


@pytest.mark.parametrize("path", pure_modules(), ids=room)
def test_pure_rooms_import_no_effects(path: Path) -> None:
    for name, line in imports(path):
        bad = [module for module in IMPURE if is_or_inside(name, module)]
        assert not bad, (
            f"{room(path)}:{line} imports {name}: pure rooms take time, chance and I/O as arguments"
        )
        if name.startswith("llmlaunch."):
            inner = name.removeprefix("llmlaunch.")
            own = room(path).split("/")[0]
            allowed = (
                *ROOMS_PURE_CODE_MAY_SEE,
                own,
                "controller.wire",
                "controller.dispatch",
                "controller.grants",
            )
            assert any(is_or_inside(inner, a) for a in allowed), f"{room(path)}:{line} reaches into {name}"


@pytest.mark.parametrize("path", [m for m in modules() if room(m).startswith("common/")], ids=room)
def test_common_is_a_leaf(path: Path) -> None:
    """Any room may import it, so it imports none, and nothing that has to be installed."""
    for name, line in imports(path):
        own = any(
            is_or_inside(name, module)
            for module in ("llmlaunch.common", "llmlaunch.errors", "_typeshed", "filelock")
        )
        assert own or name.split(".")[0] in sys.stdlib_module_names, f"{room(path)}:{line} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=room)
def test_heavy_and_terminal_libraries_have_one_home(path: Path) -> None:
    for name, line in imports(path):
        for module, home in ONE_HOME.items():
            if is_or_inside(name, module):
                assert room(path).startswith(home), f"{room(path)}:{line} imports {name}; only {home} may"


@pytest.mark.parametrize("path", modules(), ids=room)
def test_only_cli_prints_and_exits(path: Path) -> None:
    if room(path).startswith("cli/"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in CALLS_THAT_PRINT_OR_EXIT, (
                f"{room(path)}:{node.lineno} {node.func.id}()"
            )


@pytest.mark.parametrize("path", modules(), ids=room)
def test_no_shell(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            raise AssertionError(f"{room(path)}:{node.value.lineno} passes shell=")
        if isinstance(node, ast.Attribute) and node.attr in ("system", "popen"):
            assert not (isinstance(node.value, ast.Name) and node.value.id == "os"), (
                f"{room(path)}:{node.lineno}"
            )


@pytest.mark.parametrize("path", [m for m in modules() if room(m).startswith("cli/")], ids=room)
def test_verbs_import_little_at_their_top(path: Path) -> None:
    """``llmlaunch status`` answers in a blink because no verb imports a heavy room before it runs."""
    light = {
        "llmlaunch",
        "llmlaunch.common.deployment_name",
        "llmlaunch.common.dispatch_methods",
        "llmlaunch.errors",
        "llmlaunch.cli",
        "llmlaunch.paths",
        "llmlaunch.common.terminal_text",
        "typer",
    }
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        for name in names:
            third_party = name.split(".")[0] in {
                "fastapi", "httpx", "huggingface_hub", "psutil", "pydantic", "rich", "starlette", "uvicorn", "yaml",
            }  # fmt: skip
            ours = name.startswith("llmlaunch.") and not any(
                is_or_inside(name, item) for item in light - {"llmlaunch"}
            )
            assert not third_party, f"{room(path)}:{node.lineno} imports {name} at the top"
            assert not ours, f"{room(path)}:{node.lineno} imports {name} at the top"
