"""What a person sees in folders that are not as one expects them."""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration.cli.support import Fake, write
from tests.support import deployment


def test_a_folder_whose_name_is_not_utf8_is_served_and_taken_down(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"m\xd0\xcd")
    with deployment.cli(folder) as cli:
        path = write(cli, Fake("tiny"))
        assert "lab is ready" in cli.ok("up", "-d")
        assert cli.status()["manifest"] == str(path)
        assert "unchanged: controller, tiny-1, api" in cli.ok("up", "-d")
        cli.ok("restart", "tiny")
        assert "lab is down" in cli.ok("down")
        assert cli.processes() == []

        path.write_text("models: [./smollm2]\n")
        refused = cli.run("validate")
        assert refused.returncode == 2
        assert r"the path of this model is not UTF-8 text" in refused.stderr
        assert r"m\udcd0\udccd/smollm2" in refused.stderr
