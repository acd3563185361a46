"""YAML → :class:`Manifest`, or every mistake of the file at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llmlaunch.errors import ManifestError, Problem
from llmlaunch.manifest import check, devices, shorthand
from llmlaunch.manifest.schema import NAME, ApiPart, ControllerPart, DefaultsPart, ManifestPart, ModelPart
from llmlaunch.manifest.tree import Path, Tree, read
from llmlaunch.manifest.types import (
    ApiSpec,
    ControllerSpec,
    Dispatch,
    EngineName,
    GpuRequest,
    Manifest,
    ModelSpec,
    Position,
    Source,
)
from llmlaunch.manifest.words import explain, nearest

PartType = TypeVar("PartType", bound=BaseModel)
_QUANTISATION = re.compile(r"[.-](?:i?q\d\w*|bf16|f16|f32|fp16|mxfp4\w*)$", re.IGNORECASE)


def load(path: str | FilePath, env: Mapping[str, str]) -> Manifest:
    """Read and check the manifest at ``path``. Raises ManifestError with everything that is wrong with it."""
    place = FilePath(path).expanduser()
    file = str(path)
    try:
        text = place.read_bytes().decode()
    except FileNotFoundError:
        raise ManifestError(
            [Problem(file, 0, 0, "there is no such file", suggestion=_neighbour(place))]
        ) from None
    except IsADirectoryError:
        inside = place / "deploy.yaml"
        found = str(inside) if inside.exists() else ""
        raise ManifestError([Problem(file, 0, 0, "this is a folder", "a file", found)]) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ManifestError([Problem(file, line, column, "the file is not UTF-8 text")]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ManifestError([Problem(file, 0, 0, f"the file can not be read: {reason}")]) from None
    return loads(text, file=file, env=env, base=place.absolute().parent, path=str(place.absolute()))


def loads(
    text: str,
    file: str = "<string>",
    *,
    env: Mapping[str, str],
    base: FilePath | None = None,
    path: str | None = None,
) -> Manifest:
    """The manifest that ``text`` holds. Relative paths start at ``base``. Raises ManifestError."""
    tree = read(text.removeprefix("\ufeff"), file, env)
    if not isinstance(tree.data, dict):
        tree.problem((), "a manifest is a mapping", expected="models: with a list under it")
        raise ManifestError(_sorted(tree))
    manifest = _Reader(tree, base or FilePath.cwd()).manifest(path)
    if manifest is None:
        raise ManifestError(_sorted(tree))
    return manifest


def _sorted(tree: Tree) -> list[Problem]:
    return sorted(dict.fromkeys(tree.problems), key=lambda p: (p.line, p.column))


def _neighbour(place: FilePath) -> str:
    folder = place.parent
    if not folder.is_dir():
        return ""
    names = [p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml")]
    found = nearest(place.name, names) or (names[0] if len(names) == 1 else "")
    return str(folder / found) if found else ""


@dataclass(slots=True)
class _Reader:
    tree: Tree
    base: FilePath

    def manifest(self, path: str | None) -> Manifest | None:
        data = self.tree.data
        parts = {
            key: value
            for key, value in data.items()
            if key not in ("models", "defaults", "controller", "api")
        }
        head = self._part(ManifestPart, {**parts, "models": ["x"]}, ())
        controller = self._part(ControllerPart, data.get("controller", {}), ("controller",))
        api = self._part(ApiPart, data.get("api", {}), ("api",))
        defaults = data.get("defaults", {})
        if self._part(DefaultsPart, defaults, ("defaults",)) is None:
            defaults = {}
        models = self._models(data, defaults)
        if controller and api:
            check.ports(self.tree, controller, api, models)
        check.names(self.tree, models)
        if self.tree.problems or not (head and controller and api):
            return None
        return Manifest(
            name=head.name or _deployment_name(path),
            models=tuple(spec for _, spec in models),
            controller=ControllerSpec(
                controller.host, controller.port, Dispatch(controller.dispatch), controller.open_registration
            ),
            api=ApiSpec(
                api.host,
                api.port,
                self._absolute(api.api_keys_file),
                api.api_keys_env,
                api.max_body,
                tuple(api.cors_origins),
            ),
            path=path,
            secrets=frozenset(self.tree.secrets),
        )

    def _part(self, kind: type[PartType], value: Any, path: Path) -> PartType | None:
        """``value`` as ``kind``; None, with the mistakes noted, when it is not."""
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                explain(self.tree, kind, path, found)
            return None

    def _models(self, data: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[tuple[Path, ModelSpec]]:
        entries = data.get("models")
        if entries is None or entries == []:
            where: Path = ("models",) if "models" in data else ()
            self.tree.problem(where, "there are no models", expected="at least one model under models:")
            return []
        if not isinstance(entries, list):
            self.tree.problem(("models",), "models is no list", expected="a list, each line starting with -")
            return []
        found = []
        for index, entry in enumerate(entries):
            path: Path = ("models", index)
            spec = self._model(entry, defaults, path)
            if spec:
                found.append((path, spec))
        return found

    def _model(self, entry: Any, defaults: Mapping[str, Any], path: Path) -> ModelSpec | None:
        if isinstance(entry, str):
            own = self._short(entry, path)
        elif isinstance(entry, dict):
            own = dict(entry)
        else:
            self.tree.problem(
                path,
                "a model is a line of text or a mapping",
                expected=f"{shorthand.GRAMMAR}, or model: and more keys",
            )
            return None
        if own is None:
            return None
        inherited = {key: value for key, value in defaults.items() if key not in own}
        if "gpus" in own:
            inherited.pop("gpu_count", None)
        if "gpu_count" in own and "gpus" not in own:
            inherited.pop("gpus", None)
        before = len(self.tree.problems)
        part = self._part(ModelPart, inherited | own, path)
        if part is None:
            return None
        check.model(self.tree, part, own, path)
        gpus = self._gpus(part, path)
        if len(self.tree.problems) > before or gpus is None:
            return None
        return self._spec(part, gpus, own, path)

    def _short(self, entry: str, path: Path) -> dict[str, Any] | None:
        try:
            short = shorthand.parse(entry)
        except ValueError as error:
            hidden = path in self.tree.from_environment
            message = (
                "the short form, with its value from the environment, can not be read"
                if hidden
                else str(error)
            )
            self.tree.problem(path, message, expected=shorthand.GRAMMAR)
            return None
        given = {"model": short.model, "host": short.host, "port": short.port, "gpus": short.gpus}
        return {key: value for key, value in given.items() if value is not None}

    def _gpus(self, part: ModelPart, path: Path) -> GpuRequest | None:
        try:
            return devices.parse_gpus(part.gpus, part.gpu_count)
        except ValueError as error:
            self.tree.problem((*path, "gpu_count"), str(error))
            return None

    def _spec(self, part: ModelPart, gpus: GpuRequest, own: Mapping[str, Any], path: Path) -> ModelSpec:
        line, column = self.tree.place(path)
        is_label = part.engine == EngineName.COMMAND.value
        return ModelSpec(
            model=part.model if is_label else self._model_path(part.model),
            names=tuple(part.names) if part.names else (default_name(part.model),),
            engine=EngineName(part.engine),
            host=part.host,
            port=part.port,
            gpus=gpus,
            replicas=part.replicas,
            vram_bytes=part.vram,
            engine_args=part.engine_args,
            env=self._env(part, path if "env" in own else ("defaults",)),
            dtype=part.dtype,
            revision=part.revision,
            source=Source(part.source),
            trust_remote_code=part.trust_remote_code,
            max_concurrency=part.max_concurrency,
            max_model_len=part.max_model_len,
            command=tuple(part.command or ()),
            probe=part.probe,
            start_timeout_s=part.start_timeout,
            stop_grace_s=part.stop_grace,
            position=Position(self.tree.file, line, column),
        )

    def _env(self, part: ModelPart, path: Path) -> dict[str, str]:
        """Values as they are written: ``1.50`` stays ``1.50``, ``true`` stays ``true``."""
        return {
            key: self.tree.texts.get((*path, "env", key), "" if value is None else str(value))
            for key, value in part.env.items()
        }

    def _absolute(self, text: str | None) -> str | None:
        return None if text is None else str(self.base / FilePath(text).expanduser())

    def _model_path(self, model: str) -> str:
        """Absolute where it is clearly a path, or exists beside the manifest; else as it stands: a hub's id may look like a path."""
        if "://" in model:
            return model
        here = self.base / FilePath(model).expanduser()
        clearly = model.startswith(("./", "../", "/", "~")) or model in (".", "..") or model.endswith(".gguf")
        return str(here.resolve()) if clearly or here.exists() else model


def default_name(model: str) -> str:
    """What clients ask for when the manifest gives no names.

    The last part of the model; a GGUF file's name goes without ``.gguf`` and its quantisation.
    """
    last = model.rstrip("/").rsplit("/", 1)[-1]
    if last.lower().endswith(".gguf"):
        last = _QUANTISATION.sub("", last[:-5])
    return last.replace(",", "-").strip() or model


def _deployment_name(path: str | None) -> str:
    stem = FilePath(path).stem if path else "deploy"
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).lstrip("._-")[:63]
    return name if NAME.fullmatch(name) else "deploy"
