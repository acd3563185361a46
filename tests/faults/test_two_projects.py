"""What a person sees who has two projects whose manifests are called alike."""

from __future__ import annotations

from pathlib import Path

from tests.integration.cli.support import Fake, write
from tests.support import deployment
from tests.support.deployment import Cli


def project(cli: Cli, name: str, folder: Path) -> Cli:
    folder.mkdir()
    other = Cli(cli.home, folder, cli.env)
    write(other, Fake(f"of-{name}"), name=None)
    return other


def test_two_projects_each_with_a_deploy_yaml_do_not_touch_each_other(tmp_path: Path) -> None:
    with deployment.cli() as cli:
        a, b = (project(cli, name, tmp_path / name) for name in ("a", "b"))
        a.ok("up", "-d")
        assert a.status()["deployment"] == "a"
        done = b.run("status")
        assert done.returncode == 3
        assert "deployment 'b' of ./deploy.yaml is not running" in done.stderr
        assert b.ok("down").endswith(
            "nothing to take down\nnote: running: a; --name NAME means one of these\n"
        )
        assert a.component("of-a-1")["phase"] == "ready"

        # The same name on purpose or by chance: asked for, never done without a word.
        for words in (["plan", "--name", "a"], ["up", "-d", "--name", "a"]):
            done = b.run(words[0], *words[1:])
            assert done.returncode == 1
            assert (
                f"deployment 'a' was started from {a.cwd}/deploy.yaml, and this is {b.cwd}/deploy.yaml"
                in done.stderr
            )
        assert a.component("of-a-1")["incarnation"] == 1
        assert "removed: of-a-1" in b.ok("up", "-d", "--name", "a", "--replace")
        assert [c["name"] for c in b.status()["components"]] == ["controller", "of-b-1", "api"]
        assert a.run("status").returncode == 3
        b.ok("down")
        assert cli.processes() == []
