"""Programs, folders and files that a manifest names on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmlaunch.errors import ManifestError
from llmlaunch.manifest.places import refuse_missing_places, with_env_files
from llmlaunch.manifest.types import Manifest, ModelSpec
from tests.unit.manifest.reading import manifest, model, problem


def program(place: Path, mode: int = 0o755) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("#!/bin/sh\n")
    place.chmod(mode)
    return place


def venv(folder: Path) -> Path:
    program(folder / "bin" / "python")
    (folder / "pyvenv.cfg").write_text("")
    return folder


def one(keys: str, base: Path, engine: str = "vllm") -> ModelSpec:
    return model(f"models: [{{model: m, engine: {engine}, {keys}}}]", base=base)


def refusal(keys: str, base: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        refuse_missing_places(manifest(f"models:\n- model: m\n  engine: vllm\n  {keys}\n", base=base))
    (found,) = caught.value.problems
    assert (found.line, found.file) == (4, "deploy.yaml"), "where the key stands"
    return f"{found.message}; expected {found.expected}"


def usable(found: ModelSpec) -> ModelSpec:
    refuse_missing_places(Manifest("lab", (found,)))
    return found


@pytest.mark.parametrize("folder", ["venv", "a folder with blanks", "ümläut"])
def test_a_virtual_environment_is_named_by_its_folder_or_its_interpreter(tmp_path: Path, folder: str) -> None:
    place = venv(tmp_path / folder)
    for text in (
        folder,
        f"./{folder}",
        f"{folder}/",
        f"{folder}/bin/python",
        str(place),
        f"{place}/bin/../bin/python",
    ):
        found = usable(one(f'python: "{text}"', tmp_path))
        assert found.python == str(place / "bin" / "python")
        assert found.venv == str(place)


def test_a_path_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    place = venv(tmp_path / "venvs" / "vllm")
    assert usable(one("python: ~/venvs/vllm", Path("/nowhere"))).python == f"{place}/bin/python"
    program(tmp_path / "vllm")
    assert usable(one("bin: ~/vllm", Path("/nowhere"))).executable == str(tmp_path / "vllm")
    assert (
        "home folder of ~nobody-here"
        in problem("models: [{model: m, engine: vllm, bin: ~nobody-here/x}]").message
    )


def test_an_interpreter_that_belongs_to_no_virtual_environment(tmp_path: Path) -> None:
    place = program(tmp_path / "conda" / "bin" / "python3.12")
    found = usable(one("python: conda/bin/python3.12", tmp_path))
    assert (found.python, found.venv) == (str(place), "")


def test_bare_names_are_looked_for_on_path_unless_they_lie_beside_the_manifest(tmp_path: Path) -> None:
    assert usable(one("python: python3.12", tmp_path)).python == "python3.12"
    assert usable(one("bin: vllm", tmp_path)).executable == "vllm"
    program(tmp_path / "python3.12")
    program(tmp_path / "vllm")
    assert usable(one("python: python3.12", tmp_path)).python == str(tmp_path / "python3.12")
    assert usable(one("bin: vllm", tmp_path)).executable == str(tmp_path / "vllm")


def test_a_program_inside_a_virtual_environment_belongs_to_it(tmp_path: Path) -> None:
    place = venv(tmp_path / "vllm")
    program(place / "bin" / "vllm")
    assert usable(one("bin: vllm/bin/vllm", tmp_path)).venv == str(place)


def test_what_is_not_there_has_the_name_that_a_machine_with_it_would_give(tmp_path: Path) -> None:
    assert one("python: /opt/vllm", tmp_path).python == "/opt/vllm/bin/python"
    assert one("python: /opt/vllm/bin/python3", tmp_path).python == "/opt/vllm/bin/python3"
    assert one("python: .venv", tmp_path).python == f"{tmp_path}/.venv/bin/python"


def test_programs_that_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    program(tmp_path / "plain", 0o644)
    (tmp_path / "moved" / "bin").mkdir(parents=True)
    (tmp_path / "moved" / "bin" / "python").symlink_to("/no/such/python3.9")
    assert "empty has no bin/python; expected the folder of a virtual environment" in refusal(
        "python: empty", tmp_path
    )
    assert "python3 -m venv" in refusal("python: gone", tmp_path)
    assert "/moved/bin/python is a link to /no/such/python3.9, which does not exist" in refusal(
        "python: moved", tmp_path
    )
    assert "plain is not executable" in refusal("python: ./plain", tmp_path)
    assert "plain is not executable" in refusal("bin: plain", tmp_path)
    assert "empty is a folder; expected the executable file in it" in refusal("bin: ./empty", tmp_path)
    assert "gone/vllm does not exist" in refusal("bin: gone/vllm", tmp_path)
    assert refusal("bin: /dev/null", tmp_path).startswith("bin: /dev/null is not executable")


def test_a_working_folder(tmp_path: Path) -> None:
    program(tmp_path / "file")
    assert usable(one("workdir: .", tmp_path)).workdir == str(tmp_path)
    assert "gone does not exist" in refusal("workdir: gone", tmp_path)
    assert "file is not a folder" in refusal("workdir: file", tmp_path)


def test_one_mistake_of_the_defaults_is_told_once(tmp_path: Path) -> None:
    text = "defaults: {python: gone}\nmodels: [{model: a, engine: vllm}, {model: b, engine: vllm}]"
    with pytest.raises(ManifestError) as caught:
        refuse_missing_places(manifest(text, base=tmp_path))
    (found,) = caught.value.problems
    assert found.line == 1


def with_files(text: str, base: Path, *, required: bool = True) -> ModelSpec:
    (found,) = with_env_files(manifest(text, base=base), required=required).models
    return found


def test_files_of_variables_are_overridden_by_later_ones_and_by_env(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\nB=1\nC=1\n")
    (tmp_path / "b.env").write_text("B=2\nC=2\n")
    found = with_files('models: [{model: m, env_file: [a.env, b.env], env: {C: "3"}}]', tmp_path)
    assert found.env == {"A": "1", "B": "2", "C": "3"}
    assert found.secret_env == {"A", "B"}
    shared = "defaults: {env_file: a.env}\nmodels: [{model: m}]"
    assert with_files(shared, tmp_path).env == {"A": "1", "B": "1", "C": "1"}


def test_files_of_variables_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bad.env").write_text("OK=1\nnothing here\n")
    cases = {
        "gone.env": "deploy.yaml:1:31: env_file: {}/gone.env does not exist",
        "folder": "env_file: {}/folder cannot be read: Is a directory",
        "pipe": "env_file: {}/pipe cannot be read: it is a pipe or a device",
        "bad.env": "{}/bad.env:2:1: this line has no equals sign",
    }
    for name, says in cases.items():
        with pytest.raises(ManifestError) as caught:
            with_files(f"models: [{{model: m, env_file: {name}}}]", tmp_path)
        assert says.format(tmp_path) in caught.value.message
    assert with_files("models: [{model: m, env_file: gone.env}]", tmp_path, required=False).env == {}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("defaults: {python: /a}\nmodels: [{model: m, engine: vllm, bin: /b}]", ("", "/b")),
        ("defaults: {bin: /b}\nmodels: [{model: m, engine: vllm, python: /a}]", ("/a/bin/python", "")),
        ("defaults: {python: /a}\nmodels: [{model: m, engine: vllm}]", ("/a/bin/python", "")),
        ("defaults: {engine: vllm, python: /a}\nmodels: [{model: m}]", ("/a/bin/python", "")),
        ("defaults: {engine: vllm, python: /a}\nmodels: [{model: m, engine: sglang}]", ("", "")),
        ("defaults: {engine: vllm, bin: /b}\nmodels: [{model: m, engine: llamacpp}]", ("", "")),
    ],
)
def test_what_a_model_inherits_of_where_engines_are(text: str, where: tuple[str, str]) -> None:
    found = model(text)
    assert (found.python or "", found.executable or "") == where


def test_the_name_that_a_server_knows() -> None:
    assert (
        model("models: [{model: m, engine: command, command: [x], engine_model: org/m}]").engine_model
        == "org/m"
    )
    assert model("models: [{model: m, engine: command, command: [x]}]").engine_model == ""


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("python: /a, bin: /b", "python and bin both say where the engine is"),
        ("bin: /b, engine: auto", "bin needs engine: it does not say whose program it is"),
        ("kind: embed", "kind is only valid with engine: command"),
        ("engine_model: org/m", "engine_model is only valid with engine: command"),
        ("stop_signal: SIGTREM", "did you mean 'SIGTERM'?"),
        ("stop_signal: SIGKILL", "expected one of SIGTERM, SIGINT, SIGQUIT"),
        ("prefix: numactl --cpunodebind=0", "expected a list"),
        ("prefix: ['']", "item 1 of prefix is empty"),
        ("python: ''", "python is empty"),
        ("venv: /a", "did you mean 'python'?"),
        ("cwd: /a", "did you mean 'workdir'?"),
        ("env_file: {a: b}", "expected text, or a list of texts"),
    ],
)
def test_mistakes_in_these_keys(keys: str, says: str) -> None:
    engine = "" if "engine:" in keys else "engine: vllm, "
    assert says in str(problem(f"models: [{{model: m, {engine}{keys}}}]"))


def test_the_words_of_a_command_that_name_the_model_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    text = "models: [{{model: {}, engine: command, command: [serve, '{{path}}']}}]"
    assert model(text.format("weights"), base=tmp_path).path == str(tmp_path / "weights")
    assert model(text.format("./new"), base=tmp_path).path == str(tmp_path / "new")
    assert model(text.format("org/model"), base=tmp_path).path == "org/model"
    assert model(text.format("weights"), base=tmp_path).model == "weights", "a label"


def test_variables_in_a_prefix_are_not_shown() -> None:
    found = model("models: [{model: m, prefix: [run, '${WHO}']}]", {"WHO": "hunter2"})
    assert (found.prefix, found.shown_prefix) == (("run", "hunter2"), ("run", "${WHO}"))
    assert found.variables == {"WHO"}
