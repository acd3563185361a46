"""Which engines can be run for a model that leaves the choice to us: looked for in files, where the model's process would look.

No engine is imported, for that takes seconds. The Python that runs llmlaunch is asked through its import system; another one, which the
manifest or the first line of a script on PATH names, answers in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmlaunch.manifest.types import EngineName, GpuCpu, Manifest, ModelSpec
from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.planning.environment import OF_A_PYTHON, path_of, seen_from
from llmlaunch.planning.types import InstalledEngine

Modules = Mapping[str, tuple[str, str]]
"""By a module's name, its folder and its version."""
_ANSWER_S = 20.0
_MODULES = ("vllm", "sglang", "xllamacpp", "llmlaunch")
_VLLM_ENTRY = re.compile(r'^\s*"(\w+)":\s*\(', re.MULTILINE)
_SGLANG_ENTRY = re.compile(r"^EntryClass\s*=\s*(\[[^\]]*\]|\w+)", re.MULTILINE)
_MOST_BYTES = 4 << 20


def find_engines(
    manifest: Manifest, facts: Mapping[str, ModelFacts], env: Mapping[str, str], *, gpus: bool
) -> dict[str, dict[EngineName, InstalledEngine]]:
    """By the first name of each model with ``engine: auto``, what can be run for it; ``gpus``: this machine has some.

    ``env`` is what processes inherit. Of engines that the rules would not take, nothing is looked for.
    """
    folder = str(Path(manifest.path).parent) if manifest.path else ""
    asked: dict[str, Modules] = {}
    found = {}
    for model in manifest.models:
        if model.engine is EngineName.AUTO:
            search = _Search(model, folder, env, asked)
            found[model.names[0]] = dict(search.engines(facts[model.model], gpus=gpus))
    return found


class _Search:
    """Where one model's process would find its engine. ``asked`` are the interpreters that have answered."""

    def __init__(
        self, model: ModelSpec, folder: str, env: Mapping[str, str], asked: dict[str, Modules]
    ) -> None:
        self.model = model
        self.folder = folder
        self.asked = asked
        self.places = seen_from(folder, path_of(model, env))

    def engines(self, facts: ModelFacts, *, gpus: bool) -> Iterator[tuple[EngineName, InstalledEngine]]:
        """What can be run of the engines that come into question for such a model."""
        model = self.model
        if model.python and "llmlaunch" in self.modules(model.python):
            yield EngineName.TRANSFORMERS, InstalledEngine("the built-in engine")
        if facts.format == "gguf":
            if where := self.llamacpp():
                yield EngineName.LLAMACPP, InstalledEngine(where)
        elif gpus and facts.kind is ModelKind.GENERATE and not isinstance(model.gpus, GpuCpu):
            yield from self.vllm()
            yield from self.sglang()

    def llamacpp(self) -> str:
        """What would run it, by the same rule as ``engine: llamacpp``; empty: nothing."""
        python = self.model.python
        if not python and (server := shutil.which("llama-server", path=self.places)):
            return server
        python = python or sys.executable
        modules = self.modules(python)
        if not {"xllamacpp", "llmlaunch"} <= modules.keys():
            return ""
        return _called("xllamacpp", modules["xllamacpp"][1], python)

    def vllm(self) -> Iterator[tuple[EngineName, InstalledEngine]]:
        """The vLLM that ``engine: vllm`` would run, with the architectures in its list."""
        python = self.model.python
        if not python:
            script = shutil.which("vllm", path=self.places)
            python = _interpreter(Path(script)) if script else None
        if python and "vllm" in (modules := self.modules(python)):
            folder, version = modules["vllm"]
            known = vllm_architectures(Path(folder))
            yield EngineName.VLLM, InstalledEngine(_called("vLLM", version, python), known)

    def sglang(self) -> Iterator[tuple[EngineName, InstalledEngine]]:
        """The SGLang that ``engine: sglang`` would run, with the architectures of its models."""
        python = self.model.python or sys.executable
        if not self.model.python and "PATH" in self.model.env:
            python = shutil.which("python3", path=self.places) or python
        modules = self.modules(python)
        if "sglang" in modules:
            folder, version = modules["sglang"]
            known = sglang_architectures(Path(folder))
            yield EngineName.SGLANG, InstalledEngine(_called("SGLang", version, python), known)

    def modules(self, python: str) -> Modules:
        """Those of ``_MODULES`` that an interpreter has."""
        program = shutil.which(python, path=self.places) or python
        if program not in self.asked:
            ours = Path(program) == Path(sys.executable)
            self.asked[program] = located(_MODULES) if ours else _ask(program, self.folder)
        return self.asked[program]


def _called(name: str, version: str, python: str) -> str:
    return " ".join(filter(None, (name, version, "in", python)))


def located(names: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Folder and version of those of ``names`` that this interpreter has. None of them is imported."""
    found = {}
    for name in names:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is None or not spec.origin:
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        found[name] = (str(spec.origin).rpartition("/")[0], version)
    return found


def _ask(python: str, folder: str) -> Modules:
    """What another interpreter has. One that cannot be started has nothing: its process could not be, either."""
    program = (
        "from __future__ import annotations\nimport importlib.metadata, importlib.util, json, sys\n"
        + inspect.getsource(located)
        + "\nprint(json.dumps(located(tuple(sys.argv[1:]))))"
    )
    environ = {name: value for name, value in os.environ.items() if name not in OF_A_PYTHON} | {
        "PYTHONSAFEPATH": "1"
    }
    try:
        done = subprocess.run(
            [python, "-c", program, *_MODULES],
            env=environ,
            cwd=folder or None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_S,
            check=True,
        )
        return {name: (place, version) for name, (place, version) in json.loads(done.stdout).items()}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def _interpreter(script: Path) -> str | None:
    """The Python in the first line of a script that pip has installed; None: it is something else."""
    try:
        head = script.read_bytes()[:1024].decode("utf-8", "replace")
    except OSError:
        return None
    # Where the path is long or has blanks, pip writes a line for sh: '''exec' "/path/bin/python" "$0" "$@"
    match = re.match(r"#!\s*(/\S*python[0-9.]*)\s", head) or re.match(
        r"#!/bin/sh\n'''exec' \"?(/[^\"\n]*?)\"? \"\$0\"", head
    )
    return match[1] if match else None


def vllm_architectures(package: Path) -> frozenset[str]:
    """The architectures in the registry of vLLM's package, as its source lists them."""
    return frozenset(_VLLM_ENTRY.findall(_text(package / "model_executor/models/registry.py")))


def sglang_architectures(package: Path) -> frozenset[str]:
    """The architectures of SGLang's package: each of its models' modules names its classes."""
    found: set[str] = set()
    for file in sorted((package / "srt/models").glob("*.py")):
        for entry in _SGLANG_ENTRY.findall(_text(file)):
            found.update(re.findall(r"\w+", re.sub(r"#[^\n]*", "", entry)))
    return frozenset(found)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
