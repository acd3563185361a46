"""docs/grafana.json asks for nothing that /metrics does not tell."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

from llmlaunch.worker.metrics import WorkerMetrics
from llmlaunch.worker.types import EngineLoad
from tests.integration.gateway.fakes import Bench, ask
from tests.integration.gateway.test_process import bearer
from tests.integration.gateway.test_seeing import logging_bench as logging_bench
from tests.support.ports import free_port

DOCS = Path(__file__).parents[3] / "docs"
BOARD = json.loads((DOCS / "grafana.json").read_text())
FROM_PROMETHEUS = {"job", "instance"}
"""Labels that the scrape itself adds."""


def expressions() -> list[str]:
    found = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", ())]
    assert len(found) > 20
    return found


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b((?:llmlaunch_gateway_|process_|vllm:|llmlaunch:)\w+)", expression))


def labels_in(expression: str) -> set[str]:
    matched = {
        word for inner in re.findall(r"\{([^}]*)\}", expression) for word in re.findall(r"(\w+)=", inner)
    }
    grouped = {
        word for inner in re.findall(r"by \(([^)]*)\)", expression) for word in re.findall(r"\w+", inner)
    }
    return matched | grouped


def told(page: str) -> dict[str, set[str]]:
    """By name of each series of ``page``, its labels."""
    found: dict[str, set[str]] = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            series = re.match(r"([\w:]+)(?:\{(.*)\})? ", line)
            assert series is not None, line
            found.setdefault(series[1], set()).update(re.findall(r'(\w+)="', series[2] or ""))
    return found


def test_the_board_is_the_one_that_its_script_writes() -> None:
    script: dict[str, Any] = runpy.run_path(str(DOCS / "make_grafana.py"))
    assert script["text"]() == (DOCS / "grafana.json").read_text(), "run: python docs/make_grafana.py"


def test_every_expression_asks_for_what_is_told(logging_bench: Bench) -> None:
    bench = logging_bench
    dead = {"worker_name": f"http://127.0.0.1:{free_port()}", "model_names": ["m"]}
    bench.serve(dead, bench.worker().replica("m", "stream", queue_length=3))
    for model in ("m", "nobody"):
        ask(bench.port, "POST", "/v1/chat/completions", {"model": model, "messages": []}, bearer("sk-alice"))
    ask(bench.port, "POST", "/v1/chat/completions", {"model": "stream", "stream": True}, bearer("sk-alice"))
    page = ask(bench.port, "GET", "/metrics").body.decode()
    names = set(re.findall(r"^# TYPE ([\w:]+)", page, re.M))
    series = told(page) | told(WorkerMetrics().text("m", EngineLoad()))
    for expression in expressions():
        used = metrics_in(expression)
        assert used, expression
        for name in used:
            plain = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in series or plain in names, f"{name} is told by nobody: {expression}"
            if name in series:
                allowed = series[name] | FROM_PROMETHEUS
                assert labels_in(expression) <= allowed, f"{labels_in(expression) - allowed}: {expression}"
    # Everything that is asked for by label was really there to compare with, but for what needs a limit or a queue.
    asked = set().union(*map(metrics_in, expressions()))
    assert asked - series.keys() <= {"llmlaunch_gateway_limited_total", "llmlaunch_gateway_waiting"}


def test_panels_are_whole_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for expression in expressions():
        assert all(expression.count(a) == expression.count(b) for a, b in ("()", "[]", "{}")), expression
