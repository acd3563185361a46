"""The files around the code agree with each other: versions of Python, targets of make, hooks."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_same_versions_of_python_are_promised_and_tested() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    (tested,) = re.findall(r"\$\{VERSIONS:-(.+?)\}", (ROOT / ".ci/versions").read_text())
    assert PROJECT["requires-python"] == f">={promised[0]}"
    assert promised == workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == tested.split()


def test_make_lists_its_targets() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)
    listed = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True)
    assert sorted(line.split()[1] for line in listed.stdout.splitlines()) == sorted(targets.split())


def test_a_commit_is_checked_as_ci_does() -> None:
    (recipe,) = re.findall(r"^check: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    commands = [
        line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in recipe.splitlines()
    ]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"].replace(" --force-exclude", "") for hook in local["hooks"]] == commands
    assert {hook["language"] for hook in local["hooks"]} == {"system"}, "which downloads nothing"
