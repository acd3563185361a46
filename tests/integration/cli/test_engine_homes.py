"""An engine in a virtual environment of its own, as docs/guides/engines-in-venvs.md says it."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.integration.cli.support import ENGINE, ask
from tests.support.deployment import Cli, cli
from tests.support.model_files import llama_folder
from tests.support.ports import free_port

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs/guides/engines-in-venvs.md").read_text()
VLLM = f"""\
import argparse, runpy, sys
parser = argparse.ArgumentParser()
parser.add_argument("serve")
parser.add_argument("model")
parser.add_argument("--served-model-name", nargs="+")
parser.add_argument("--port")
asked, _ = parser.parse_known_args()
sys.argv[1:] = ["--port", asked.port, "--names", ",".join(asked.served_model_name)]
runpy.run_path({str(ENGINE)!r}, run_name="__main__")
"""


def fake_vllm(folder: Path) -> Path:
    """A virtual environment whose vllm is the fake engine."""
    modules = (
        folder
        / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/vllm/entrypoints/cli"
    )
    modules.mkdir(parents=True)
    (modules / "main.py").write_text(VLLM)
    (modules.parents[1] / "__init__.py").touch()
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(os.path.realpath(sys.executable))
    (folder / "pyvenv.cfg").write_text(f"home = {Path(os.path.realpath(sys.executable)).parent}\n")
    return folder


def manifests() -> list[str]:
    return [block for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL) if "models:" in block]


def write(box: Cli, **model: Any) -> dict[str, Any]:
    """The guide's longest manifest, with what is there on this machine in the place of what is not."""
    data = yaml.safe_load(next(text for text in manifests() if "prefix:" in text))
    (entry,) = data["models"]
    entry |= {"model": "weights", "names": ["m"], "gpus": "cpu", "port": free_port(), **model}
    entry["prefix"] = ["env", "WRAPPED=yes"]
    data |= {"name": "lab", "controller": {"port": free_port()}, "api": {"port": free_port()}}
    (box.cwd / "deploy.yaml").write_text(json.dumps(data))
    return dict(entry)


def test_the_guide_s_engine_runs_where_it_lives() -> None:
    with cli(PYTHONPATH="/ours", PYTHONSAFEPATH="1", VIRTUAL_ENV="/ours") as box:
        place = fake_vllm(box.cwd / "a venv")
        llama_folder(box.cwd / "weights")
        (box.cwd / "work").mkdir()
        (box.cwd / "vllm.env").write_text("MOOD='hunter2secret # 1'\n")
        entry = write(box, python="a venv", workdir="work")

        def seen() -> dict[str, str]:
            found: dict[str, str] = ask(f"http://127.0.0.1:{entry['port']}/seen")["env"]
            return found

        box.ok("up", "-d")
        env = seen()
        assert env["PATH"].startswith(f"{place}/bin:")
        assert env["VIRTUAL_ENV"] == str(place)
        assert "PYTHONPATH" not in env
        assert (env["WRAPPED"], env["MOOD"], env["VLLM_LOGGING_LEVEL"]) == (
            "yes",
            "hunter2secret # 1",
            "INFO",
        )
        shown = box.ok("plan", "--json") + box.ok("status", "--json") + box.ok("logs", "m-1")
        assert "hunter2secret" not in shown
        (process,) = (
            p for p in json.loads(box.ok("plan", "--json"))["processes"] if p["component"] == "worker"
        )
        assert process["argv"][:6] == [
            "env",
            "WRAPPED=yes",
            f"{place}/bin/python",
            "-m",
            "vllm.entrypoints.cli.main",
            "serve",
        ]

        (box.cwd / "vllm.env").write_text("MOOD=other\n")
        box.ok("up", "-d")
        assert (seen()["MOOD"], box.component("m-1")["incarnation"]) == ("other", 2)
        held = "".join(p.read_text(errors="replace") for p in box.home.glob("state/**/*") if p.is_file())
        assert "hunter2secret" not in held
        box.ok("down", "--force")


def test_what_is_missing_is_told_in_the_guide_s_words() -> None:
    said = next(line for line in GUIDE.splitlines() if line.startswith("error: deploy.yaml"))
    with cli() as box:
        (box.cwd / "opt").mkdir()
        (box.cwd / "deploy.yaml").write_text(manifests()[0].replace("/opt/vllm", "./opt"))
        for verb in ("plan", "up"):
            done = box.run(verb)
            assert done.returncode == 2
            assert done.stderr.strip() == said.replace("/opt/vllm", str(box.cwd / "opt"))
