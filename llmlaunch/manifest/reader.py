"""From a tree of plain values to a Manifest: defaults, short forms, and every mistake on the way noted in the tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llmlaunch.manifest import check, devices, resolve, shorthand
from llmlaunch.manifest.error_messages import explain
from llmlaunch.manifest.schema import ApiPart, ControllerPart, DefaultsPart, ManifestPart, ModelPart
from llmlaunch.manifest.types import (
    DEFAULT_LOG_KEEP,
    DEFAULT_LOG_MAX_BYTES,
    ApiSpec,
    ControllerSpec,
    EngineName,
    GpuRequest,
    Manifest,
    ModelSpec,
    Position,
    Restarts,
    Source,
)
from llmlaunch.manifest.yaml_document import Path, YamlDocument

PartType = TypeVar("PartType", bound=BaseModel)
Wrong = frozenset[str]
"""Keys of a part that were reported as wrong, and left out."""


@dataclass(slots=True)
class Reader:
    """Goes through the whole file whatever it finds, so that one run tells every mistake."""

    tree: YamlDocument
    base: FilePath

    def manifest(self, path: str | None) -> Manifest:
        """The manifest; only to be used when the tree has no problems after this."""
        data = self.tree.data
        parts = ("models", "defaults", "controller", "api")
        rest = {key: value for key, value in data.items() if key not in parts}
        head, _ = self._part(ManifestPart, rest, (), {"models": ["x"]})
        controller, no_controller = self._part(ControllerPart, data.get("controller", {}), ("controller",))
        api, no_api = self._part(ApiPart, data.get("api", {}), ("api",))
        shared, no_defaults = self._part(DefaultsPart, data.get("defaults", {}), ("defaults",))
        defaults = _without(data.get("defaults", {}), no_defaults)
        specs, entries = self._models(defaults)
        log_max = shared.log_max or DEFAULT_LOG_MAX_BYTES
        log_keep = shared.log_keep or DEFAULT_LOG_KEEP
        placed = {"host", "port"}
        check.ports(
            self.tree,
            None if placed & no_controller else controller,
            None if placed & no_api else api,
            entries,
        )
        check.names(self.tree, entries)
        if not no_api & {"tls_cert", "tls_key"}:
            check.tls(self.tree, api)
        return Manifest(
            name=head.name or resolve.deployment_name(path),
            models=tuple(specs),
            controller=ControllerSpec(
                controller.host,
                controller.port,
                controller.dispatch,
                controller.open_registration,
                log_max_bytes=controller.log_max or log_max,
                log_keep=controller.log_keep or log_keep,
            ),
            api=ApiSpec(
                api.host,
                api.port,
                self._file(api.api_keys_file, ("api", "api_keys_file")),
                api.api_keys_env,
                api.max_body,
                tuple(api.cors_origins),
                api.access_log,
                api.processes,
                self._file(api.tls_cert, ("api", "tls_cert")),
                self._file(api.tls_key, ("api", "tls_key")),
                api.max_bodies,
                tuple(api.allowed_hosts),
                log_max_bytes=api.log_max or log_max,
                log_keep=api.log_keep or log_keep,
                trusted_proxies=tuple(api.trusted_proxies),
                ollama=api.ollama,
            ),
            path=path,
            secrets=frozenset(self.tree.secrets),
        )

    def _part(
        self, kind: type[PartType], value: Any, path: Path, stand_in: Mapping[str, Any] | None = None
    ) -> tuple[PartType, Wrong]:
        """``value`` as ``kind``, without the keys that are wrong, which are noted.

        ``stand_in`` has values for required keys that are not there.
        """
        stand_in = stand_in or {}
        try:
            return kind.model_validate(value if kind is not ManifestPart else {**stand_in, **value}), Wrong()
        except ValidationError as error:
            found = error.errors(include_url=False)
        for item in found:
            explain(self.tree, kind, path, item)
        if not isinstance(value, dict):
            return kind.model_validate(stand_in), Wrong(kind.model_fields)
        wrong = Wrong(str(item["loc"][0]) for item in found)
        return kind.model_validate({**stand_in, **_without(value, wrong)}), wrong

    def _models(self, defaults: Mapping[str, Any]) -> tuple[list[ModelSpec], list[check.ModelClaims]]:
        data = self.tree.data
        listed = data.get("models")
        specs: list[ModelSpec] = []
        entries: list[check.ModelClaims] = []
        if listed is None or listed == []:
            misspelt = any(problem.suggestion == "models" for problem in self.tree.problems)
            if not misspelt and not self.tree.unreadable(("models",)):
                where: Path = ("models",) if "models" in data else ()
                self.tree.problem(where, "no models are listed", expected="at least one under models:")
        elif not isinstance(listed, list):
            self.tree.problem(
                ("models",), "models is not a list", expected="a list, each line starting with -"
            )
        else:
            for index, value in enumerate(listed):
                self._model(value, defaults, ("models", index), specs, entries)
        return specs, entries

    def _model(
        self,
        value: Any,
        defaults: Mapping[str, Any],
        path: Path,
        specs: list[ModelSpec],
        entries: list[check.ModelClaims],
    ) -> None:
        """Add what entry ``value`` of ``models`` says to ``specs`` and ``entries``, as far as it can be read."""
        own = self._own(value, path)
        if own is None:
            return
        part, wrong = self._part(ModelPart, _inherit(own, defaults), path, {"model": "?"})

        def home(key: str) -> Path:
            return (*path, key) if key in own or key not in defaults else ("defaults", key)

        check.model(self.tree, part, wrong, path, home)
        spec = self._spec(part, path, home)
        specs.append(spec)
        named = self._names(part, spec, path) if not wrong & {"names", "model"} or part.names else ()
        port = None if wrong & {"host", "port"} else part.port
        entries.append(check.ModelClaims(path, named, part.host, port))

    def _own(self, value: Any, path: Path) -> dict[str, Any] | None:
        """An entry's own keys; None, with the mistake noted, when it has none."""
        if self.tree.unreadable(path):
            return None
        if isinstance(value, dict):
            return value
        if not isinstance(value, str):
            expected = f"{shorthand.GRAMMAR}, or model: and more keys"
            self.tree.problem(path, "a model is a line of text or a mapping", expected=expected)
            return None
        try:
            short = shorthand.parse(value)
        except ValueError as error:
            hidden = "the short form is not valid with its value from the environment"
            message = hidden if self.tree.hidden(path) else str(error)
            self.tree.problem(path, message, expected=shorthand.GRAMMAR)
            return None
        given = {"model": short.model, "host": short.host, "port": short.port, "gpus": short.gpus}
        return {key: item for key, item in given.items() if item is not None}

    def _names(self, part: ModelPart, spec: ModelSpec, path: Path) -> tuple[tuple[Path, str], ...]:
        """The served names, each with the place of what it comes from."""
        places: list[Path] = [(*path, "names", index) for index in range(len(spec.names))]
        if not part.names:
            places = [(*path, "model")]
        elif places[0] not in self.tree.values:
            places = [(*path, "names")]
        return tuple(zip(places, spec.names, strict=True))

    def _gpus(self, part: ModelPart, home: check.Home) -> GpuRequest:
        try:
            return devices.parse_gpus(part.gpus, part.gpu_count)
        except devices.DeviceError as error:
            self.tree.problem(home("gpu_count"), f"gpu_count {error}", key=True)
            return devices.parse_gpus(part.gpus)

    def _spec(self, part: ModelPart, path: Path, home: check.Home) -> ModelSpec:
        line, column = self.tree.place(path)
        is_label = part.engine == EngineName.COMMAND.value
        model = part.model if is_label else self._model_path(part.model, home("model"))
        python = self._place(resolve.interpreter, part.python, home("python"))
        executable = self._place(resolve.executable, part.bin, home("bin"))
        return ModelSpec(
            model=model,
            names=tuple(part.names or ()) or (self._default_name(model, home("model")),),
            engine=EngineName(part.engine),
            engine_model=part.engine_model or "",
            host=part.host,
            port=part.port,
            gpus=self._gpus(part, home),
            replicas=part.replicas,
            vram_bytes=part.vram,
            engine_args=part.engine_args,
            env=self._env(part, path),
            env_pass=tuple(dict.fromkeys(part.env_pass)),
            env_only=part.env_only,
            env_files=tuple(
                file for text in part.env_file if (file := self._file(text, home("env_file"))) is not None
            ),
            python=python,
            executable=executable,
            venv=resolve.virtual_environment(python or executable or ""),
            prefix=tuple(part.prefix),
            shown_prefix=tuple(self.tree.as_written(home("prefix"), part.prefix)),
            workdir=self._file(part.workdir, home("workdir")),
            stop_signal=part.stop_signal,
            dtype=part.dtype,
            revision=part.revision,
            source=Source(part.source),
            trust_remote_code=part.trust_remote_code,
            max_concurrency=part.max_concurrency,
            max_model_len=part.max_model_len,
            tool_parser=part.tool_parser,
            command=tuple(part.command or ()),
            kind=part.kind or "",
            path=self._label_path(part, home("model")) if is_label else "",
            probe=part.probe,
            ready_probe=part.ready_probe,
            probe_timeout_s=part.probe_timeout,
            probe_failures=part.probe_failures,
            restart=part.restart or Restarts(),
            request_timeout_s=part.request_timeout,
            start_timeout_s=part.start_timeout,
            stop_grace_s=part.stop_grace,
            variables=frozenset(self._variables(part, path, home)),
            shown_command=tuple(self.tree.as_written(home("command"), part.command or [])),
            shown_engine_args={
                name: self.tree.as_written(self._inherited(path, "engine_args", name), value)
                for name, value in part.engine_args.items()
            },
            log_max_bytes=part.log_max or DEFAULT_LOG_MAX_BYTES,
            log_keep=part.log_keep or DEFAULT_LOG_KEEP,
            position=Position(self.tree.file, line, column),
            key_positions={
                key: Position(self.tree.file, *self.tree.place(home(key)))
                for key in ("python", "bin", "workdir", "env_file")
                if getattr(part, key)
            },
        )

    def _env(self, part: ModelPart, path: Path) -> dict[str, str]:
        """Values as they are written: ``1.50`` stays ``1.50``, ``true`` stays ``true``."""
        texts = self.tree.texts
        found = {}
        for key in part.env:
            own: Path = (*path, "env", key)
            found[key] = texts[own] if own in texts else texts.get(("defaults", "env", key), "")
        return found

    def _variables(self, part: ModelPart, path: Path, home: check.Home) -> set[str]:
        """Names of the variables in its env, command, prefix and engine_args, what it inherits included."""
        found = self.tree.variables(home("command")) | self.tree.variables(home("prefix"))
        for key in ("env", "engine_args"):
            for name in getattr(part, key):
                found |= self.tree.variables(self._inherited(path, key, name))
        return found

    def _inherited(self, path: Path, key: str, name: str) -> Path:
        """Where the value of ``name`` under ``key`` stands: in the model at ``path``, or under defaults."""
        own: Path = (*path, key, name)
        return own if own in self.tree.values else ("defaults", key, name)

    def _file(self, text: str | None, path: Path) -> str | None:
        return self._place(resolve.absolute, text, path)

    def _place(self, rule: Callable[[str, FilePath], str], text: str | None, path: Path) -> str | None:
        """What ``rule`` makes of ``text``, which stands at ``path``; None, with the mistake noted, where it cannot."""
        try:
            return None if text is None else rule(text, self.base)
        except ValueError as error:
            self._no_path(error, path)
            return None

    def _model_path(self, model: str, path: Path) -> str:
        try:
            place = resolve.model_path(model, self.base)
        except ValueError as error:
            self._no_path(error, path)
            return model
        if not resolve.is_text(place):
            shown = place.encode("utf-8", "backslashreplace").decode()
            message = f"the path of this model is not UTF-8 text: {shown}"
            expected = "a folder with another name: the libraries that load models cannot open such a path"
            self.tree.problem(path, message, expected=expected)
        return place

    def _label_path(self, part: ModelPart, path: Path) -> str:
        """What ``{path}`` stands for. Labels that no word asks it of may be any text."""
        asked = any("{path}" in word for word in part.command or ())
        return self._model_path(part.model, path) if asked else ""

    def _no_path(self, error: ValueError, path: Path) -> None:
        message = "the path cannot be read" if self.tree.hidden(path) else str(error)
        self.tree.problem(
            path, message, expected="an absolute path, or one relative to the manifest's folder"
        )

    def _default_name(self, model: str, path: Path) -> str:
        name = resolve.default_name(model)
        if not name and not self.tree.unreadable(path):
            self.tree.problem(path, "cannot derive a name from this model", expected="names: with one")
        return name


def _without(value: Any, keys: Wrong) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in keys} if isinstance(value, dict) else {}


def _inherit(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A model's own keys over the defaults. ``env`` and ``engine_args`` are put together key by key.

    ``gpus`` and ``gpu_count`` answer one question, and so do ``python`` and ``bin``: a model that gives one of them does not inherit
    the other. Flags of the defaults' engine are not for another engine, and neither is the place where it is installed.
    """
    inherited = {key: value for key, value in defaults.items() if key not in own}
    if "gpus" in own:
        inherited.pop("gpu_count", None)
    elif "gpu_count" in own:
        inherited.pop("gpus", None)
    if "python" in own:
        inherited.pop("bin", None)
    elif "bin" in own:
        inherited.pop("python", None)
    if "engine" in defaults and own.get("engine", defaults["engine"]) != defaults["engine"]:
        inherited.pop("python", None)
        inherited.pop("bin", None)
    same_engine = own.get("engine", defaults.get("engine")) == defaults.get("engine")
    if not same_engine:
        inherited.pop("engine_args", None)
    found: dict[str, Any] = {**inherited, **own}
    for key in ("env", "engine_args") if same_engine else ("env",):
        mine, theirs = own.get(key), defaults.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found[key] = {**theirs, **mine}
    return found
