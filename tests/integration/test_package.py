"""The wheel and the sdist, installed where nothing else is: what ``pip install llmlaunch`` brings has to be enough."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

from llmlaunch import __version__
from tests.integration.cli.support import Fake, manifest
from tests.support import packages
from tests.support.deployment import Cli, cli
from tests.support.model_files import llama_folder

ROOT = Path(__file__).parents[2]
SOURCES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "llmlaunch").rglob("*.py")}
IMPORT_ALL = """
import importlib, pathlib, sys
import llmlaunch
import llmlaunch.supervision.processes.shim  # makes its own neighbours importable
root = pathlib.Path(llmlaunch.__file__).parent
for path in sorted(root.rglob("*.py")):
    name = ".".join(("llmlaunch", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
    if not name.startswith("llmlaunch.worker") and not name.endswith("__main__"):
        importlib.import_module(name)
print(root)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return packages.build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def sdist(built: tuple[Path, Path]) -> Path:
    return built[0]


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    return packages.environment(tmp_path_factory.mktemp("light"), wheel)


@pytest.fixture
def light(python: Path) -> Iterator[Cli]:
    with cli(CUDA_VISIBLE_DEVICES="") as box:
        box.python = str(python)
        yield box


def about(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def test_a_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"llmlaunch-{__version__}.dist-info"
    assert names - SOURCES == {
        "llmlaunch/py.typed",
        *(f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")),
        f"{info}/licenses/LICENSE",
    }
    assert names >= SOURCES


def test_a_wheel_says_what_it_is(wheel: Path) -> None:
    fields = about(wheel)
    assert fields["Version"] == __version__
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields.get_payload() == (ROOT / "README.md").read_text()
    assert any(url.startswith("Homepage, ") for url in fields.get_all("Project-URL", []))


def test_an_sdist_holds_its_tests_and_documents(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "Makefile",
        "constraints.txt",
        "deploy.yaml.example",
        "tests/integration/test_package.py",
        *SOURCES,
    ):
        assert name in names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "dist"))]


def test_every_plain_part_can_be_imported(python: Path, tmp_path: Path) -> None:
    """Everything but the built-in engine, in an environment that has only what the wheel requires."""
    done = subprocess.run(
        [python, "-c", IMPORT_ALL], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(python.parents[1]), "the checkout was imported instead"


def test_the_command_looks_before_it_starts(light: Cli, python: Path) -> None:
    script = subprocess.run(
        [python.with_name("llmlaunch"), "--version"],
        cwd=light.cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert script.stdout == f"llmlaunch {__version__}\n"
    llama_folder(light.cwd / "tiny")
    (light.cwd / "deploy.yaml").write_text("models: [./tiny]")
    light.ok("validate")
    plan = json.loads(light.ok("plan", "--gpus", "2xA100-80GB", "--json"))
    (worker,) = (process for process in plan["processes"] if process["component"] == "worker")
    assert worker["names"] == ["tiny"]
    assert worker["gpus"]


def test_a_deployment_of_another_engine_runs(light: Cli) -> None:
    """Supervisor, controller and gateway need no extra."""
    (light.cwd / "deploy.yaml").write_text(manifest(Fake("echo")))
    light.ok("up", "-d")
    light.ok("test", "echo")
    light.ok("down")


@pytest.mark.parametrize("verb", [("plan",), ("up", "-d")], ids=lambda words: words[0])
def test_a_model_without_its_extra_is_refused(light: Cli, python: Path, verb: tuple[str, ...]) -> None:
    llama_folder(light.cwd / "tiny")
    (light.cwd / "deploy.yaml").write_text("models: [./tiny]")
    done = light.run(*verb)
    assert done.returncode == 1
    assert "model tiny: the built-in engine needs torch, transformers, accelerate, " in done.stderr
    assert f"which {python} does not have" in done.stderr
    assert f"uv pip install --python {python} 'llmlaunch[worker]'" in done.stderr, (
        "this environment has no pip"
    )
    assert not light.processes()


def test_a_worker_by_hand_without_its_extra_is_refused(light: Cli, python: Path) -> None:
    done = light.run("worker", "--model-path", "./tiny")
    assert done.returncode == 2
    assert "the built-in engine needs torch" in done.stderr
    assert "'llmlaunch[worker]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_traces_without_their_extra_are_refused(light: Cli) -> None:
    (light.cwd / "deploy.yaml").write_text(manifest(Fake("echo")))
    light.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:4318"
    done = light.run("plan")
    assert done.returncode == 1
    assert "api: sending traces needs opentelemetry.sdk.trace, " in done.stderr
    assert "'llmlaunch[otel]'" in done.stderr
    light.env["OTEL_TRACES_EXPORTER"] = "none"
    light.ok("plan")


@pytest.mark.slow
def test_the_command_that_a_refusal_names_brings_what_is_missing(
    light: Cli, tmp_path: Path, wheel: Path
) -> None:
    """From the package index into an empty environment, as a user does it; otel, because torch takes minutes."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    light.python = str(python)
    light.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:4318"
    (light.cwd / "deploy.yaml").write_text(manifest(Fake("echo")))
    refusal = light.run("plan").stderr
    (command,) = (
        line.partition("install it: ")[2] for line in refusal.splitlines() if "install it: " in line
    )
    subprocess.run(["sh", "-ec", command], check=True, stdout=subprocess.DEVNULL)
    light.ok("plan")
