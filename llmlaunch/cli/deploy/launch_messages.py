"""What ``up`` says of a deployment: what changed, what is not ready, and how to use it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmlaunch.cli.display import render

if TYPE_CHECKING:
    from llmlaunch.cli.deploy.launched import LaunchedDeployment
    from llmlaunch.control.types import ApplyResult


def changes(result: ApplyResult) -> str:
    """What an apply has done to which components, on one line."""
    kinds = {
        "started": result.started,
        "restarted": result.restarted,
        "removed": result.removed,
        "unchanged": result.unchanged,
    }
    return (
        "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names) or "nothing to do"
    )


def not_ready(launched: LaunchedDeployment) -> str:
    """Every component that is not ready, each with its reason on a line."""
    progress = launched.session.progress
    return "not ready:\n" + "\n".join(map(progress.reason, progress.missing()))


def how_to_look(launched: LaunchedDeployment) -> str:
    """The commands that show and stop this deployment, as a hint."""
    return f"look: llmlaunch status{launched.selector} · stop: llmlaunch down{launched.selector}"


def supervisor_log_hint(launched: LaunchedDeployment) -> str:
    """Where a supervisor that has ended left its last words, as a hint."""
    from llmlaunch.paths import DeploymentPaths

    return f"what it said last is in {DeploymentPaths(launched.plan.deployment).supervisor_log}"


def show_summary(launched: LaunchedDeployment) -> None:
    """The endpoint, what it serves, a command line that answers, and how to stop."""
    plan, shown, status = launched.plan, launched.shown, launched.client.status()
    failed = launched.session.progress.failed() + launched.session.progress.ended()
    took = time.monotonic() - launched.began
    state = f"is up without {', '.join(failed)}" if failed else "is ready"
    shown.say(f"\n{plan.deployment} {state} ({took:.1f} s)", "bold red" if failed else "bold green")
    shown.say(f"  endpoint  {render.endpoint(status.api.url)}")
    missing = launched.session.progress.missing()
    serving = {name for spec in plan.processes if spec.name not in missing for name in spec.names}
    shown.say(f"  models    {', '.join(name for name in plan.served_names if name in serving)}")
    stop = "Ctrl-C" if launched.attached else f"llmlaunch down{launched.selector}"
    if not launched.attached:
        shown.say(f"  runs      in the background, under supervisor {status.supervisor.pid}")
    shown.say(f"  stop      {stop}")
    model = _model_to_try(launched)
    if model is not None:
        keys = launched.manifest.api
        key = keys.api_keys_env or ("KEY" if keys.api_keys_file else "")
        lines = render.curl(status.api.url, model[0], embedding=model[1], key=key)
        shown.say("  try       " + "\n            ".join(lines))
        if keys.api_keys_file:
            shown.say(f"            (KEY: one of those in {keys.api_keys_file})")


def _model_to_try(launched: LaunchedDeployment) -> tuple[str, bool] | None:
    """The first name that is ready, one that generates if there is one, and whether it embeds."""
    missing = launched.session.progress.missing()
    ready = [p for p in launched.plan.processes if p.names and p.name not in missing and p.kind != "rerank"]
    for spec in sorted(ready, key=lambda spec: spec.kind == "embed"):
        return spec.names[0], spec.kind == "embed"
    return None
