"""Whatever a file holds: a Manifest or a ManifestError, and every problem has a place inside the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.errors import ManifestError
from llmlaunch.manifest.load import loads

ROOT = Path(__file__).parents[3]
SOURCES = [
    (ROOT / "deploy.yaml.example").read_text(),
    *(p.read_text() for p in sorted((ROOT / "examples").glob("*.yaml"))),
]
ENV = {"HOME_PORT": "8123", "S": "hunter2-0123456789"}
TOKENS = [
    "models:", "- ", "{", "}", "[", "]", ": ", ", ", "&a ", "*a", "<<: *a", "${S}", "${", "$$", "${X:-", "@", "'", '"', "\n", "  ",
    "\t", "#", "|", ">", "!!int ", "~", "---\n", "0", "-1", "65536", "true", "gpus: ", "port: 8000", "names: x", "\\x00", "\0", "é", "𝄞",
    "\u2028", "\x85", "\r",
]  # fmt: skip


def check(text: str) -> None:
    try:
        found = loads(text, "f.yaml", env=ENV, base=Path("/nowhere"))
    except ManifestError as error:
        problems = error.problems
    else:
        names = found.served_names
        assert names
        assert all(names)
        assert len(set(names)) == len(names)
        return
    lines = text.replace("\r\n", "\n").count("\n") + sum(text.count(c) for c in "\r\x85\u2028\u2029") + 1
    for problem in problems:
        assert problem.message
        assert 1 <= problem.line <= lines, str(problem)
        assert 1 <= problem.column <= len(text) + 1, str(problem)
        assert ENV["S"] not in str(problem)
    places = [(problem.line, problem.column) for problem in problems]
    assert places == sorted(places)
    assert 0 < len(set(problems)) == len(problems)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A right manifest with a few places cut out, doubled or filled with YAML's own characters."""
    text = draw(st.sampled_from(SOURCES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 30)))
        middle = draw(
            st.sampled_from(["", text[start:end] * 2]) | st.sampled_from(TOKENS) | st.text(max_size=5)
        )
        text = text[:start] + middle + text[end:]
    return text


@settings(max_examples=300, deadline=None)
@given(mutated())
def test_mutated_manifests(text: str) -> None:
    check(text)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(
    ["auto", "cpu", "vllm", "command", "${S}", "${NOPE}", "a@b@1@0", "GPU-1", "18GiB", "90s", "0,1", "~/x", "./x", "::1"]
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
_MODEL_KEYS = [
    "model", "names", "engine", "host", "port", "gpus", "gpu_count", "replicas", "vram", "engine_args", "env", "dtype", "revision",
    "source", "trust_remote_code", "max_concurrency", "max_model_len", "command", "probe", "ready_probe",
    "probe_timeout", "probe_failures", "restart", "start_timeout", "stop_grace", "nonsense",
]  # fmt: skip
_MODEL = st.dictionaries(st.sampled_from(_MODEL_KEYS), _VALUES, max_size=6)
_MANIFEST = st.fixed_dictionaries(
    {},
    optional={
        "name": _VALUES,
        "runtime": _VALUES,
        "controller": st.dictionaries(
            st.sampled_from(["host", "port", "dispatch", "open_registration", "x"]), _VALUES
        )
        | _VALUES,
        "api": st.dictionaries(
            st.sampled_from(["host", "port", "api_keys_file", "max_body", "cors_origins", "x"]), _VALUES
        )
        | _VALUES,
        "defaults": _MODEL | _VALUES,
        "models": st.lists(_MODEL | _VALUES, max_size=4) | _VALUES,
        "nonsense": _VALUES,
    },
)


@settings(max_examples=300, deadline=None)
@given(_MANIFEST, st.booleans())
def test_any_values_under_known_keys(data: object, flow: bool) -> None:
    check(yaml.safe_dump(data, allow_unicode=True, default_flow_style=flow))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(TOKENS) | st.text(max_size=3), max_size=30).map("".join))
def test_any_text(text: str) -> None:
    check(text)


@pytest.mark.parametrize("text", SOURCES)
def test_the_sources_are_right(text: str) -> None:
    loads(text, env={})
