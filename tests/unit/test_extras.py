"""Which process needs which extra, and whether an interpreter has it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from llmlaunch import extras
from llmlaunch.extras import LLAMACPP, MODELSCOPE, OTEL, WORKER, Extra

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
LLAMACPP_ARGV = ("/venv/bin/python", "-m", "llmlaunch.llamacpp", "-m", "m.gguf")
WORKER_ARGV = ("/venv/bin/python", "-m", "llmlaunch", "worker", "--model-path", "m")
API_ARGV = ("/venv/bin/python", "-m", "llmlaunch", "api")
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("argv", "environ", "needed"),
    [
        (WORKER_ARGV, {}, WORKER),
        (WORKER_ARGV, ENDPOINT, WORKER),
        (LLAMACPP_ARGV, {}, LLAMACPP),
        (("llama-server", "-m", "m.gguf"), {}, None),
        (("vllm", "serve", "m"), ENDPOINT, None),
        (("python", "-m", "llmlaunch"), {}, None),
        ((), {}, None),
        (API_ARGV, {}, None),
        (API_ARGV, ENDPOINT, OTEL),
        (API_ARGV, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h"}, OTEL),
        (API_ARGV, {"OTEL_SERVICE_NAME": "llm"}, None),
        (API_ARGV, {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None),
        (API_ARGV, {**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, None),
        (("/venv/bin/python", "-m", "llmlaunch", "controller"), ENDPOINT, None),
    ],
)
def test_what_a_process_needs(argv: tuple[str, ...], environ: dict[str, str], needed: Extra | None) -> None:
    assert extras.needed_by(argv, environ) is needed


def test_commands_are_quoted_for_a_shell() -> None:
    assert (
        extras.install_command(WORKER, "/my envs/a/bin/python")
        == "'/my envs/a/bin/python' -m pip install 'llmlaunch[worker]'"
    )
    assert (
        extras.install_command(OTEL, "/a/python", has_pip=False)
        == "uv pip install --python /a/python 'llmlaunch[otel]'"
    )


@pytest.mark.parametrize("extra", [WORKER, LLAMACPP, MODELSCOPE], ids=lambda extra: extra.name)
def test_modules_are_those_of_the_declared_packages(extra: Extra) -> None:
    """These packages are all imported under their own names."""
    declared = PROJECT["optional-dependencies"][extra.name]
    assert sorted(Requirement(text).name for text in declared) == sorted(extra.modules)


@pytest.mark.parametrize("extra", [WORKER, OTEL], ids=lambda extra: extra.name)
def test_nothing_is_missing_where_tests_run(extra: Extra) -> None:
    assert extras.absent(extra.modules) == []


def test_all_is_every_extra_that_is_for_users() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    names = set(PROJECT["optional-dependencies"]) - {"all", "dev", "docs"}
    assert Requirement(everything).extras == names == {WORKER.name, LLAMACPP.name, OTEL.name, MODELSCOPE.name}


def test_what_is_absent_is_told_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_module.py").write_text("raise SystemExit('imported')")
    (tmp_path / "left_behind").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert extras.absent(("loud_module", "json", "no_such_module", "no.such.module", "left_behind")) == [
        "no_such_module",
        "no.such.module",
        "left_behind",
    ]


def test_an_interpreter_is_asked_in_its_own_environment(tmp_path: Path) -> None:
    extra = Extra("some", "a test", ("only_there", "json"))
    environ = dict(os.environ)
    lacking = extras.missing(extra, sys.executable, environ=environ, cwd=str(tmp_path))
    assert lacking is not None
    assert lacking.modules == ("only_there",)
    assert lacking.message == f"a test needs only_there, which {sys.executable} does not have"
    assert lacking.command == f"{sys.executable} -m pip install 'llmlaunch[some]'"
    (tmp_path / "only_there.py").touch()
    environ["PYTHONPATH"] = str(tmp_path)
    assert extras.missing(extra, sys.executable, environ=environ, cwd="") is None


def test_an_interpreter_without_llmlaunch_lacks_that_too(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    lacking = extras.missing(Extra("some", "a test", ()), python, environ={}, cwd=str(tmp_path))
    assert lacking is not None
    assert lacking.modules == ("llmlaunch",)
    assert lacking.command.startswith("uv pip install --python ")


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\nprintf '\\377'\n", "no program"])
def test_an_interpreter_that_cannot_be_asked_is_given_the_benefit_of_the_doubt(
    tmp_path: Path, program: str
) -> None:
    python = tmp_path / "python"
    python.write_text(program)
    python.chmod(0o755)
    assert extras.missing(WORKER, str(python), environ={}, cwd="") is None


def test_an_interpreter_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "ANSWER_S", 0.1)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    assert extras.missing(WORKER, str(python), environ=dict(os.environ), cwd="") is None
