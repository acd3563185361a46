"""``llmlaunch validate``, as the command line runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmlaunch.cli.app import build

RIGHT = "models: [a, {model: b, replicas: 2}]\n"


WRONG = "models:\n  - model: a\n    replcas: 2\n    port: 0\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(build(["validate"]), list(words))


def test_a_right_manifest(folder: Path) -> None:
    (folder / "deploy.yaml").write_text(RIGHT)
    found = run("validate")
    assert (found.exit_code, found.stdout, found.stderr) == (0, "deploy.yaml: ok: 2 models, 3 replicas\n", "")
    (folder / "one.yaml").write_text("models: [a]\n")
    assert run("validate", "one.yaml").stdout == "one.yaml: ok: 1 model, 1 replica\n"


def test_a_wrong_manifest(folder: Path) -> None:
    (folder / "deploy.yaml").write_text(WRONG)
    found = run("validate")
    assert (found.exit_code, found.stdout) == (2, "")
    first, second = found.stderr.splitlines()
    assert first == "error: deploy.yaml:3:5: unknown key 'replcas'; did you mean 'replicas'?"
    assert second.strip().startswith("deploy.yaml:4:11: port is 0, which is out of range")


def test_json(folder: Path) -> None:
    (folder / "deploy.yaml").write_text(RIGHT)
    found = run("validate", "--json")
    assert (found.exit_code, json.loads(found.stdout)) == (0, {"ok": True, "problems": [], "notes": []})
    (folder / "deploy.yaml").write_text(WRONG)
    found = run("validate", "--json")
    assert (found.exit_code, found.stderr) == (2, "")
    said = json.loads(found.stdout)
    assert said["ok"] is False
    assert [(p["file"], p["line"], p["column"]) for p in said["problems"]] == [
        ("deploy.yaml", 3, 5),
        ("deploy.yaml", 4, 11),
    ]
    assert set(said["problems"][0]) == {"file", "line", "column", "message", "expected", "suggestion"}
    assert said["problems"][0]["suggestion"] == "replicas"


def test_variables_come_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deploy.yaml").write_text("models:\n- ${MODEL_TO_SERVE}\n")
    monkeypatch.delenv("MODEL_TO_SERVE", raising=False)
    assert "MODEL_TO_SERVE is not set" in run("validate").stderr
    monkeypatch.setenv("MODEL_TO_SERVE", "m")
    assert run("validate").exit_code == 0


def test_no_file(folder: Path) -> None:
    (folder / "deploy.yml").write_text(RIGHT)
    found = run("validate")
    assert found.exit_code == 2
    assert found.stderr == "error: deploy.yaml: no such file; did you mean 'deploy.yml'?\n"


def test_what_plan_would_refuse_as_wrong_is_refused(folder: Path) -> None:
    (folder / "deploy.yaml").write_text("models:\n- {model: a, engine: vllm, engine_args: {port: 1}}\n")
    found = run("validate")
    assert found.exit_code == 2
    assert found.stderr.startswith("error: deploy.yaml:2:3: model a: engine_args: port is set by the plan")
    found = run("validate", "--json")
    assert found.exit_code == 2
    assert [problem["line"] for problem in json.loads(found.stdout)["problems"]] == [2]


def test_a_flag_that_the_engine_is_not_known_to_have_is_noted(folder: Path) -> None:
    (folder / "deploy.yaml").write_text(
        "models:\n- {model: a, engine: vllm, engine_args: {max_modle_len: 1}}\n"
    )
    found = run("validate")
    assert found.exit_code == 0
    assert found.stderr.startswith(
        "note: a: engine_args: max_modle_len: vLLM 0.32.0 has no flag --max-modle-len; did you mean"
    )
    assert len(json.loads(run("validate", "--json").stdout)["notes"]) == 1
