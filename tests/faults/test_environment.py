"""What a person sees who mends a start by changing the shell."""

from __future__ import annotations

import json

from tests.integration.cli.support import NO_PATIENCE, Fake, ask, write
from tests.support import deployment


def test_a_later_up_starts_what_is_down_with_its_own_environment() -> None:
    with deployment.cli() as cli:
        needy = Fake("needy", ["--fail-without", "SWITCH"])
        fine = Fake("fine")
        path = write(cli, needy, fine)
        cli.env |= NO_PATIENCE | {"SWITCH": "", "OPENED_BY": "first"}
        assert cli.run("up", "-d").returncode == 1
        cli.env |= {"SWITCH": "on", "OPENED_BY": "second"}
        cli.ok("up", "-d")

        def seen(fake: Fake) -> str:
            return str(ask(f"http://127.0.0.1:{fake.port}/seen")["env"]["OPENED_BY"])

        assert (seen(needy), seen(fine)) == ("second", "first")
        # Told before anything is touched, with the PATH that it would get.
        data = json.loads(path.read_text())
        data["models"][0]["command"][0] = "no-such-server"
        path.write_text(json.dumps(data))
        done = cli.run("up", "-d")
        assert done.returncode == 1
        assert "model needy: the program 'no-such-server' was not found on PATH (" in done.stderr
        assert cli.component("needy-1")["phase"] == "ready"

        held = "".join(p.read_text(errors="replace") for p in cli.home.glob("state/**/*") if p.is_file())
        assert "OPENED_BY" not in held
        cli.ok("down", "--force")
