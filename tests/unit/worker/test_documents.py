"""docs/reference/worker.md says what the code does."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from llmlaunch.cli.app import build
from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.api.completions.protocol import CompletionBody
from llmlaunch.worker.api.embeddings import EmbeddingBody
from llmlaunch.worker.api.protocol import GenerationBody, parse
from llmlaunch.worker.api.rerank import RerankBody, ScoreBody
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from llmlaunch.worker.metrics import WorkerMetrics
from llmlaunch.worker.types import EngineLoad

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_worker", ROOT / "docs" / "make_worker.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(maker: ModuleType) -> str:
    return str((ROOT / maker.REFERENCE).read_text(encoding="utf-8"))


def test_the_page_is_current(maker: ModuleType, page: str) -> None:
    assert page == maker.page(), "docs/reference/worker.md is old: make docs"


def test_every_flag_of_the_help_is_in_it(page: str) -> None:
    told = CliRunner().invoke(build(["worker", "schema"]), ["worker", "--help"], env={"COLUMNS": "200"})
    flags = set(re.findall(r"--[a-z][a-z-]+", told.output)) - {"--help"}
    assert len(flags) > 25
    assert {flag for flag in flags if f"`{flag}`" not in page} == set()


def test_every_field_of_every_body_is_in_it(page: str, maker: ModuleType) -> None:
    told = {body for _, _, body in maker.TABLES}
    assert told == {
        GenerationBody, ChatBody, CompletionBody, ResponsesBody,
        EmbeddingBody, RerankBody, ScoreBody,
    }  # fmt: skip
    for body in told:
        for name in body.model_fields:
            assert f"| `{name}` |" in page


def test_every_metric_is_in_it_and_no_other(maker: ModuleType) -> None:
    text = WorkerMetrics().text("m", EngineLoad())
    assert set(re.findall(r"^# TYPE (\S+)", text, re.M)) == set(maker.METRICS)


def test_every_address_is_in_it_and_no_other(page: str) -> None:
    from llmlaunch.worker.api.routes import application
    from llmlaunch.worker.api.service import Service
    from llmlaunch.worker.config import WorkerConfig
    from llmlaunch.worker.state import WorkerState

    service = Service(WorkerConfig(model="m", names=("m",)), WorkerState(needs_controller=False))
    there = {getattr(route, "path", "").replace(":path", "") for route in application(service).routes}
    table = page.split("## Endpoints")[1].split("\n\n")[1]
    told = set()
    for cell in re.findall(r"^\| (.*?) \|", table, re.M)[1:]:
        told |= {path.replace("{model}", "{name}") for path in re.findall(r"(/[^`\s]+)`", cell)}
    assert told == there


def test_the_first_example_is_a_body_that_holds(page: str) -> None:
    body = re.search(r"-d '(\{.*\})'", page)
    assert body
    parse(ChatBody, json.dumps(json.loads(body[1])).encode())
