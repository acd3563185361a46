"""The hub, spoken to over HTTP: facts without a download, downloads with progress, and every way it can fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmlaunch.errors import ModelError
from llmlaunch.manifest.types import Source
from llmlaunch.models.inspect import inspect
from llmlaunch.models.sources import huggingface as hub_module
from llmlaunch.models.sources.fetch import fetch
from tests.support.fake_hub import FakeHub, serve
from tests.support.model_files import GGUF_LLAMA, gguf, llama_folder, safetensors, sharded_folder
from tests.support.ports import free_port


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with serve(tmp_path / "hub") as value:
        yield value


@pytest.fixture
def env(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache")}


@pytest.mark.parametrize("make", [llama_folder, sharded_folder])
@pytest.mark.parametrize("ignore_ranges", [False, True])
def test_facts_are_the_same_remote_and_local(
    hub: FakeHub, env: dict[str, str], make: Callable[[Path], Path], ignore_ranges: bool
) -> None:
    folder = make(hub.root / "org" / "tiny")
    hub.ignore_ranges = ignore_ranges
    here, there = inspect(str(folder), env=env), inspect("org/tiny", env=env)
    for name in (
        "parameters",
        "weight_bytes",
        "dtype",
        "layers",
        "layer_caches",
        "context_length",
        "format",
    ):
        assert getattr(here, name) == getattr(there, name), name
    assert (there.path, there.local, there.hub) == ("org/tiny", False, "huggingface")
    assert set(there.files) == {p.name for p in folder.iterdir()}
    assert there.download_bytes == sum(p.stat().st_size for p in folder.iterdir())


def test_a_plan_downloads_headers_only(hub: FakeHub, env: dict[str, str]) -> None:
    folder = llama_folder(hub.root / "org" / "tiny")
    (folder / "model.safetensors").write_bytes(safetensors({"w": ("F32", (1 << 20, 8))}))
    facts = inspect("org/tiny", env=env)
    assert facts.weight_bytes == 32 << 20
    assert hub.sent < 200_000
    assert not Path(env["HF_HUB_CACHE"]).exists()


def test_download_with_progress_then_offline(hub: FakeHub, env: dict[str, str]) -> None:
    folder = sharded_folder(hub.root / "org" / "tiny")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"not wanted")
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    facts = inspect("org/tiny", env=env)
    seen: list[tuple[int, int]] = []
    path = fetch(facts, lambda done, total, what: seen.append((done, total)), env=env)
    assert {p.name for p in path.iterdir()} == set(facts.files)
    assert seen[0] == (0, facts.download_bytes)
    assert seen[-1] == (facts.download_bytes, facts.download_bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    asked = len(hub.requests)
    cached = inspect("org/tiny", env={**env, "HF_HUB_OFFLINE": "1"})
    assert cached.local
    assert Path(cached.path) == path
    assert inspect("org/tiny", env=env).path == cached.path
    assert len(hub.requests) == asked, "a whole snapshot needs no hub"


def test_what_is_there_already_is_not_counted(hub: FakeHub, env: dict[str, str]) -> None:
    folder = sharded_folder(hub.root / "org" / "tiny")
    whole = inspect("org/tiny", env=env)
    path = fetch(whole, lambda *_: None, env=env)
    (path / "model-00001-of-00002.safetensors").unlink()
    part = inspect("org/tiny", env=env)
    assert not part.local
    assert part.download_bytes == (folder / "model-00001-of-00002.safetensors").stat().st_size
    with pytest.raises(ModelError, match=r"only part of it.*1 of 2 weight files"):
        inspect("org/tiny", env={**env, "HF_HUB_OFFLINE": "1"})


def test_gguf_on_the_hub(hub: FakeHub, env: dict[str, str]) -> None:
    folder = hub.root / "org" / "tiny-gguf"
    folder.mkdir(parents=True)
    for name in ("tiny-Q4.gguf", "tiny-Q8.gguf"):
        (folder / name).write_bytes(gguf(GGUF_LLAMA))
    with pytest.raises(ModelError, match=r"several GGUF models: tiny-Q4\.gguf, tiny-Q8\.gguf"):
        inspect("org/tiny-gguf", env=env)
    facts = inspect("org/tiny-gguf/tiny-Q8.gguf", env=env)
    assert (facts.format, facts.layers, facts.files) == ("gguf", 2, ("tiny-Q8.gguf",))
    path = fetch(facts, lambda *_: None, env=env)
    assert path.name == "tiny-Q8.gguf"
    assert path.is_file()
    assert inspect("org/tiny-gguf/tiny-Q8.gguf", env={**env, "HF_HUB_OFFLINE": "1"}).path == str(path)


def test_a_quantisation_of_a_gguf_model_on_the_hub(hub: FakeHub, env: dict[str, str]) -> None:
    folder = hub.root / "org" / "tiny-gguf"
    (folder / "Q8_0").mkdir(parents=True)
    for name in ("tiny-Q4_K_M.gguf", "Q8_0/tiny-Q8_0.gguf", "mmproj-f16.gguf"):
        (folder / name).write_bytes(gguf(GGUF_LLAMA))
    for tag, file in (
        ("q4_k_m", "tiny-Q4_K_M.gguf"),
        ("latest", "tiny-Q4_K_M.gguf"),
        ("Q8_0", "Q8_0/tiny-Q8_0.gguf"),
    ):
        facts = inspect(f"org/tiny-gguf:{tag}", env=env)
        assert (facts.path, facts.local) == ("org/tiny-gguf", False)
        assert (facts.files, facts.projector) == ((file, "mmproj-f16.gguf"), "mmproj-f16.gguf")
        path = fetch(facts, lambda *_: None, env=env)
        assert path.as_posix().endswith(file)
        assert (path.parents[file.count("/")] / facts.projector).exists()
        offline = inspect(f"org/tiny-gguf:{tag}", env={**env, "HF_HUB_OFFLINE": "1"})
        assert offline.path == str(path)
        shutil.rmtree(env["HF_HUB_CACHE"])
    with pytest.raises(ModelError, match=r"has no GGUF file that is Q5_K_M") as caught:
        inspect("org/tiny-gguf:Q5_K_M", env=env)
    assert caught.value.hint == "there are Q4_K_M, Q8_0"


def test_a_gated_model_asks_for_a_token(hub: FakeHub, env: dict[str, str]) -> None:
    llama_folder(hub.root / "org" / "gated")
    hub.gated.add("org/gated")
    with pytest.raises(ModelError, match="gated") as caught:
        inspect("org/gated", env=env)
    assert "HF_TOKEN" in caught.value.hint
    facts = inspect("org/gated", env={**env, "HF_TOKEN": hub.token})
    assert facts.layers == 2
    assert fetch(facts, lambda *_: None, env={**env, "HF_TOKEN": hub.token}).is_dir()


def test_an_unknown_model_names_the_places_and_the_nearest(hub: FakeHub, env: dict[str, str]) -> None:
    llama_folder(hub.root / "org" / "tiny")
    fetch(inspect("org/tiny", env=env), lambda *_: None, env=env)
    with pytest.raises(ModelError) as caught:
        inspect("org/tinny", env=env)
    for place in ("local folder", "hub cache", f"Hugging Face hub {hub.url}"):
        assert place in caught.value.message
    assert "org/tiny" in caught.value.hint


def test_an_unknown_revision(hub: FakeHub, env: dict[str, str]) -> None:
    llama_folder(hub.root / "org" / "tiny")
    with pytest.raises(ModelError, match="no revision 'v9'"):
        inspect("org/tiny", revision="v9", env=env)


def test_a_refused_connection(tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "HF_HUB_CACHE": str(tmp_path)}
    with pytest.raises(ModelError, match="refused") as caught:
        inspect("org/tiny", env=env)
    assert "network" in caught.value.hint


def test_a_hub_that_never_answers(hub: FakeHub, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "FIRST_ANSWER_S", 0.3)
    hub.silent = True
    with pytest.raises(ModelError, match=r"no answer within 0\.3 s"):
        inspect("org/tiny", env=env)
    hub.released.set()


def test_offline_says_which_variable(env: dict[str, str]) -> None:
    with pytest.raises(ModelError, match=r"not asked \(TRANSFORMERS_OFFLINE=yes\)"):
        inspect("org/tiny", env={**env, "TRANSFORMERS_OFFLINE": "yes"})


def test_a_broken_header_on_the_hub(hub: FakeHub, env: dict[str, str]) -> None:
    folder = llama_folder(hub.root / "org" / "tiny")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match=r"org/tiny/model.safetensors: not a safetensors file"):
        inspect("org/tiny", env=env)


def test_a_full_disk_is_told_before_the_download(
    hub: FakeHub, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    llama_folder(hub.root / "org" / "tiny")
    facts = inspect("org/tiny", env=env)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match="10 bytes free"):
        fetch(facts, lambda *_: None, env=env)


def test_modelscope_needs_its_package(env: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="modelscope") as caught:
        inspect("org/tiny", source=Source.MODELSCOPE, env=env)
    assert "pip install" in caught.value.hint
