"""What engines cannot do, found before anything is planned."""

from __future__ import annotations

from llmlaunch.engines import registry
from llmlaunch.errors import ManifestError, Problem
from llmlaunch.manifest.types import Manifest, ModelSpec

_OURS = frozenset({"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"})


def refuse_invalid(manifest: Manifest) -> None:
    """Raise ManifestError with everything that an engine cannot do, at the models' places in the file."""
    problems = []
    for model in manifest.models:
        where = model.position
        engine = registry.get(model.engine)
        said = [*engine.problems(model)]
        if engine.key_variable in model.env:
            said.append(f"env: {engine.key_variable} is set by the deployment; clients' keys belong to api:")
        said += [
            f"env: {key} is set by the plan; write gpus: on the model" for key in model.env if key in _OURS
        ]
        problems += [
            Problem(
                where.file if where else manifest.path or manifest.name,
                where.line if where else 0,
                where.column if where else 0,
                f"model {model.names[0]}: {text}",
            )
            for text in (_without_secrets(model, text) for text in said)
        ]
    if problems:
        raise ManifestError(problems)


def _without_secrets(model: ModelSpec, text: str) -> str:
    """``text`` without values that came from the environment. Numbers stay: a short one stands anywhere."""
    for real, shown in model.hidden:
        if isinstance(real, str | list | dict):
            text = text.replace(repr(real), repr(shown))
    return text
