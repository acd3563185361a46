"""Which deployment a command acts on, and which of its components an argument means.

``-f FILE`` or ``--name NAME``, else ``./deploy.yaml``, else the only deployment that runs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmlaunch import paths
from llmlaunch.common.deployment_name import RULE, is_deployment_name
from llmlaunch.errors import NotRunningError, PlanError, UsageError

if TYPE_CHECKING:
    from llmlaunch.control.types import ComponentStatus

DEFAULT_FILE = "deploy.yaml"
_NULLS = ("", "~", "null", "Null", "NULL")
"""YAML's words for nothing, without quotes."""


def complete_deployment(incomplete: str) -> list[str]:
    """For the shell: deployments that run."""
    from llmlaunch.control.discovery import running_deployments

    return [name for name in running_deployments() if name.startswith(incomplete)]


def complete_component(ctx: typer.Context, incomplete: str) -> list[str]:
    """For the shell: components and models of the deployment that the words so far select."""
    from llmlaunch.control.client import ControlClient
    from llmlaunch.errors import LlmlaunchError

    try:
        name = deployment(ctx.params.get("file"), ctx.params.get("name"))
        components = ControlClient.connect(name).status().components
    except LlmlaunchError:
        return []
    words = {c.name for c in components} | {model for c in components for model in c.names}
    return sorted(word for word in words if word.startswith(incomplete))


def complete_model(ctx: typer.Context, incomplete: str) -> list[str]:
    """For the shell: names that clients may ask for."""
    from llmlaunch.control.client import ControlClient
    from llmlaunch.errors import LlmlaunchError

    try:
        name = deployment(ctx.params.get("file"), ctx.params.get("name"))
        components = ControlClient.connect(name).status().components
    except LlmlaunchError:
        return []
    return sorted({model for c in components for model in c.names if model.startswith(incomplete)})


# The options every verb shares, spelled once.
FILE = typer.Option(None, "-f", "--file", help="The manifest whose deployment is meant.", metavar="FILE")
NAME = typer.Option(
    None, "--name", help="The deployment's name.", metavar="NAME", autocompletion=complete_deployment
)


def check_name(name: str) -> str:
    """``name`` itself. Raises UsageError when no deployment may be called that."""
    if not is_deployment_name(name):
        raise UsageError(
            f"{name!r} is not a valid deployment name",
            hint=f"use {RULE}",
        )
    return name


def deployment(file: str | None, name: str | None, *, stopped_too: bool = False) -> str:
    """The name of the deployment that ``-f`` and ``--name`` select, else ./deploy.yaml, else the only one that runs.

    A file stands for the deployment that was started from it, never for one that another file of the same name started.

    ``stopped_too``: deployments that do not run count, too; without ./deploy.yaml the only one that left logs behind.
    Raises UsageError when several could be meant, NotRunningError when none is, ManifestError for a file without a readable name.
    """
    from llmlaunch.control.discovery import running_deployments

    if file is not None and name is not None:
        raise UsageError("-f and --name both say which deployment is meant", hint="use one of them")
    if name is not None:
        return check_name(name)
    running = running_deployments()
    if file is not None or Path(DEFAULT_FILE).exists():
        chosen = _of_file(file or DEFAULT_FILE, running)
        if file is None and running and chosen not in running and not stopped_too:
            raise NotRunningError(
                f"deployment {chosen!r} of ./{DEFAULT_FILE} is not running",
                hint=f"running: {', '.join(running)}; --name NAME means one of these",
            )
        return chosen
    if len(running) == 1:
        return running[0]
    if running:
        raise UsageError(
            f"{len(running)} deployments are running: {', '.join(running)}", hint="say which: --name NAME"
        )
    if stopped_too and len(known := _with_logs()) == 1:
        return known[0]
    raise NotRunningError(_none_running(), hint=f"start one: llmlaunch up {DEFAULT_FILE}")


def _none_running() -> str:
    from llmlaunch.control.supervisor_process import foreign_deployments

    others = [f"{name!r} belongs to {paths.describe_user(uid)}" for name, uid in foreign_deployments()]
    return "; ".join(
        ["no deployment is running" if not others else "no deployment of yours is running", *others]
    )


def _of_file(file: str, running: Sequence[str]) -> str:
    """The deployment that was started from ``file``, or would be. Raises NotRunningError when another file's has its name."""
    from llmlaunch.control.discovery import manifest_of

    sources = {name: manifest_of(name) for name in running}
    found = [name for name, source in sources.items() if source is not None and same_file(source, file)]
    if len(found) == 1:
        return found[0]
    wanted = name_of(file)
    if found and wanted not in found:
        raise UsageError(
            f"{len(found)} deployments run from {file}: {', '.join(found)}", hint="say which: --name NAME"
        )
    other = sources.get(wanted)
    if other is not None and not found:
        raise NotRunningError(
            f"deployment {wanted!r} of {_absolute(file)} is not running; the one of this name runs from {other}",
            hint=f"--name {wanted} means that one",
        )
    return wanted


def same_file(a: str, b: str) -> bool:
    """Whether both paths lead to the same place; the file need not exist."""
    return os.path.realpath(a) == os.path.realpath(_absolute(b))


def refuse_other_file(name: str, source: str | None, file: str) -> None:
    """Raise PlanError when the running deployment ``name``, started from ``source``, is not the one of ``file``."""
    if source is None or same_file(source, file):
        return
    raise PlanError(
        f"deployment {name!r} was started from {source}, and this is {_absolute(file)}",
        hint="give this one another name (name: in the file, or --name NAME), or put it in that one's place: up --replace",
        code="other_manifest",
    )


def _absolute(file: str) -> str:
    return str(Path(os.path.expanduser(file)).absolute())  # noqa: PTH111  # which knows no error


def _with_logs() -> list[str]:
    root = paths.state_root()
    return sorted(p.parent.name for p in root.glob("*/logs")) if root.is_dir() else []


def name_of(file: str | Path) -> str:
    """The name of the deployment that the manifest ``file`` describes.

    Only the name is read: a file that is broken further down still says which deployment to stop.
    Raises ManifestError when there is no file, or nothing in it that YAML understands.
    """
    try:
        declared = _declared_name(Path(file))
        if declared is None:
            from llmlaunch.manifest.resolve import deployment_name

            return deployment_name(_absolute(str(file)))
        if is_deployment_name(declared):
            return declared
    except ValueError:
        pass
    from llmlaunch.manifest.load import load  # it says what is wrong, and where

    return load(file, os.environ).name


def name_to_start(file: str) -> str:
    """The name under which ``up`` starts ``file``: the manifest's, else the one that is made of its path.

    A path through a link would make another name, and a second deployment of what runs from there already: that one is meant.
    Raises ManifestError as :func:`name_of`.
    """
    from llmlaunch.control.discovery import manifest_of, running_deployments
    from llmlaunch.manifest.resolve import deployment_name

    wanted = name_of(file)
    if wanted != deployment_name(_absolute(file)):
        return wanted
    running = running_deployments()
    for name in running if wanted not in running else ():
        source = manifest_of(name)
        if source is not None and name == deployment_name(source) and same_file(source, file):
            return name
    return wanted


def _declared_name(file: Path) -> str | None:
    """The top-level ``name`` as written, None when there is none. Aliases are never expanded on the way.

    Raises ValueError when that cannot be told.
    """
    import yaml

    from llmlaunch.manifest.file import MAX_BYTES, read_bytes

    try:
        text = read_bytes(file)
        if len(text) > MAX_BYTES:
            raise ValueError("larger than any manifest")
        return _scan(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(str(error)) from None


def _scan(events: Iterable[object]) -> str | None:
    import yaml

    depth, key = 0, None
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                return None
            if depth == 1:
                text, plain = "", False
                if isinstance(event, yaml.ScalarEvent):
                    text, plain = str(event.value), bool(event.implicit[0])
                if key == "name":
                    return None if plain and text in _NULLS else text
                key = text if key is None else None  # keys and values take turns
            depth += isinstance(event, yaml.CollectionStartEvent)
    return None


def components(words: Sequence[str], known: Sequence[ComponentStatus]) -> list[str]:
    """The components that ``words`` mean, in the deployment's order: a component's own name, or a model's for all its replicas.

    Raises UsageError naming the nearest word for one that means nothing.
    """
    chosen = set()
    for word in words:
        found = [c.name for c in known if c.name == word] or [
            c.name for c in known if word in c.names or (c.model and word == c.model)
        ]
        if not found:
            raise unknown_component(word, {c.name for c in known} | {n for c in known for n in c.names})
        chosen.update(found)
    return [c.name for c in known if c.name in chosen]


def unknown_component(word: str, known: Iterable[str]) -> UsageError:
    """The error for ``word``, with the nearest of ``known``."""
    from llmlaunch.common.spelling import nearest

    names = sorted(known)
    near = nearest(word, names, cutoff=0.5)
    hint = f"did you mean {near!r}? " if near else ""
    return UsageError(
        f"no component or model is called {word!r}", hint=f"{hint}there are: {', '.join(names) or 'none'}"
    )


def _seconds(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter("expected a number of seconds above 0")
    return value


def timeout_option(help_text: str) -> Any:
    """``--timeout S``: seconds, above 0. Any, because typer's options stand where their values will be."""
    return typer.Option(None, "--timeout", metavar="S", callback=_seconds, help=help_text)
