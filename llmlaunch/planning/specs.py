"""The processes themselves: argv, environment, mask and probes of the controller, the workers and the API server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from llmlaunch.common.addresses import local_url
from llmlaunch.engines.types import DeviceClaim, Engine, Launch, LaunchRequest
from llmlaunch.manifest.types import ApiSpec, ControllerSpec, EngineName, Manifest, ModelSpec
from llmlaunch.models.facts import ModelFacts
from llmlaunch.planning import estimate, naming
from llmlaunch.planning.devices import Device
from llmlaunch.planning.environment import looks_secret, programs_folder
from llmlaunch.planning.types import Component, PlanningContext, ProcessSpec

_SECRET_NAME = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
# Shorter values are compared whole: a secret of "1" must not hide every value with a 1 in it.
_SHORTEST_PART = 6
WRAP_UP_S = 3.0
"""Seconds that the API server has beyond its own grace: to tell open streams that they end, and then to end itself."""
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_PART = re.compile(r"[A-Za-z]\w*")
_ORDER, _VISIBLE = "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"


class ProcessSpecBuilder:
    """Makes the specs of one deployment. The same arguments always make an equal spec."""

    def __init__(self, manifest: Manifest, context: PlanningContext, controller_url: str) -> None:
        self._manifest = manifest
        self._context = context
        self._controller_url = controller_url

    def controller(self, port: int) -> ProcessSpec:
        """The controller. Everything starts at the same time: workers and gateways wait for it themselves."""
        wanted = self._manifest.controller
        argv = [
            *self._llmlaunch(naming.CONTROLLER, wanted.host, port),
            "--dispatch-method",
            wanted.dispatch,
        ]
        if wanted.open_registration:
            argv.append("--open-registration")
        return self._own(naming.CONTROLLER, Component.CONTROLLER, argv, wanted, port, {})

    def api(self, port: int) -> ProcessSpec:
        """The gateway. It may take as long to end as the slowest of its models, and WRAP_UP_S more."""
        wanted = self._manifest.api
        argv = [*self._llmlaunch(naming.API, wanted.host, port), "--controller-address", self._controller_url]
        env = {}
        if wanted.api_keys_file:
            argv += ["--api-keys-file", wanted.api_keys_file]
        if wanted.api_keys_env:
            argv += ["--api-keys-env", wanted.api_keys_env]
            if wanted.api_keys_env in self._context.env:
                env[wanted.api_keys_env] = self._context.env[wanted.api_keys_env]
        argv += ["--max-body-bytes", str(wanted.max_body_bytes)]
        # A request may take as long to end at the gateway as at any of the models behind it.
        grace = max(model.stop_grace_s for model in self._manifest.models)
        argv += [naming.STOP_GRACE, f"{grace:g}"]
        argv += ["--max-bodies-bytes", str(wanted.max_bodies_bytes)]
        for origin in wanted.cors_origins:
            argv += ["--cors-origin", origin]
        for name in wanted.allowed_hosts:
            argv += ["--allowed-host", name]
        for network in wanted.trusted_proxies:
            argv += ["--trusted-proxy", network]
        if wanted.access_log:
            argv.append("--access-log")
        if wanted.ollama:
            argv.append("--ollama")
        if wanted.processes > 1:
            argv += ["--processes", str(wanted.processes)]
        if wanted.tls_cert and wanted.tls_key:
            argv += ["--tls-cert", wanted.tls_cert, "--tls-key", wanted.tls_key]
        spec = self._own(naming.API, Component.API, argv, wanted, port, env)
        spec = replace(
            spec,
            stop_grace_s=grace + WRAP_UP_S,
            api_keys_file=wanted.api_keys_file or "",
            api_keys_variable=wanted.api_keys_env or "",
        )
        if wanted.tls_cert:
            spec = replace(spec, address=spec.address.replace("http:", "https:", 1))
        return spec

    def worker(
        self,
        name: str,
        model: ModelSpec,
        facts: ModelFacts | None,
        engine: Engine,
        port: int,
        devices: Sequence[Device],
        claims: Sequence[int],
        visible: str,
        reason: str,
    ) -> ProcessSpec:
        """``visible`` is the device mask that names ``devices``; ``claims`` are bytes for each of them."""
        kv_tokens = None
        if facts and devices and claims:
            kv_tokens = estimate.kv_tokens(model, facts, engine, len(devices), min(claims))
        request = LaunchRequest(
            component=name,
            model=model,
            facts=facts,
            host=model.host,
            port=port,
            controller_url=self._controller_url,
            devices=tuple(
                DeviceClaim(device.uuid, device.index, device.total, claim)
                for device, claim in zip(devices, claims, strict=True)
            ),
            python=model.python or self._context.python,
            kv_tokens=kv_tokens,
            absent=self._context.absent.get(model.names[0], frozenset()),
            cores=self._context.cores,
            mask=visible,
        )
        launch = engine.launch(request)
        env = {**launch.env, **model.env, _ORDER: "PCI_BUS_ID", _VISIBLE: visible}
        if model.venv:
            env = {"VIRTUAL_ENV": model.venv, **env}
        return ProcessSpec(
            name=name,
            component=Component.WORKER,
            argv=(*model.prefix, *launch.argv),
            argv_shown=_shown(engine, request) if model.hidden else (),
            prefix=len(model.prefix),
            workdir=model.workdir or "",
            stop_signal=model.stop_signal,
            path_first=programs_folder(model),
            own_python=bool(model.python or model.executable),
            engine_auto=bool(model.engine_reason),
            engine_reason="; ".join(filter(None, (model.engine_reason, launch.why))),
            env=env,
            host=model.host,
            port=port,
            address=local_url(model.host, port),
            model=model.model,
            names=model.names,
            engine_model=model.engine_model or launch.engine_model,
            engine=engine.name,
            kind=facts.kind.value if facts else model.kind,
            gpus=tuple(device.uuid for device in devices),
            mask=visible,
            vram_bytes=sum(claims),
            vram_per_gpu=tuple(claims),
            ready_path=_ready_path(model, launch),
            live_path=launch.live_path if model.probe is None else model.probe,
            probe_timeout_s=model.probe_timeout_s or launch.probe_timeout_s,
            probe_failures=model.probe_failures or launch.probe_failures,
            restart_max=model.restart.max,
            restart_delay_s=model.restart.delay_s,
            self_registering=launch.self_registering,
            progress_patterns=launch.progress_patterns,
            max_concurrency=_concurrency_limit(model, engine, launch),
            request_timeout_s=model.request_timeout_s,
            max_model_len=model.max_model_len,
            start_timeout_s=model.start_timeout_s or launch.start_timeout_s,
            stop_grace_s=model.stop_grace_s,
            log_max_bytes=model.log_max_bytes,
            log_keep=model.log_keep,
            reason=reason,
            secret_env=tuple(sorted({*self._secret(env), *model.secret_env})),
            key_variable=engine.key_variable,
            env_pass=model.env_pass,
            env_only=model.env_only,
            own_env=tuple(sorted(model.variables)),
            learning_key=self._learning_key(model, facts, engine, devices),
        )

    def _learning_key(
        self, model: ModelSpec, facts: ModelFacts | None, engine: Engine, devices: Sequence[Device]
    ) -> str:
        """Nothing is learned about labels, about what the manifest decides, or from GPUs that differ."""
        names = {device.name for device in devices}
        if facts is None or model.vram_bytes is not None or len(names) != 1:
            return ""
        args = estimate.effective_args(model, len(devices))
        return estimate.learning_key(model.model, engine.name, args, names.pop())

    def _own(
        self,
        name: str,
        component: Component,
        argv: Sequence[str],
        wanted: ControllerSpec | ApiSpec,
        port: int,
        env: Mapping[str, str],
    ) -> ProcessSpec:
        """The controller or the API server; ``env`` holds its secrets.

        They need no GPU, and without a mask a library of theirs might open every one.
        """
        return ProcessSpec(
            name=name,
            component=component,
            argv=tuple(argv),
            env={**env, _VISIBLE: ""},
            host=wanted.host,
            port=port,
            address=local_url(wanted.host, port),
            mask="",
            start_timeout_s=60.0,
            log_max_bytes=wanted.log_max_bytes,
            log_keep=wanted.log_keep,
            reason="needs no GPU",
            secret_env=tuple(sorted(env)),
        )

    def _llmlaunch(self, verb: str, host: str, port: int) -> tuple[str, ...]:
        return (self._context.python, "-m", "llmlaunch", verb, "--host", host, "--port", str(port))

    def _secret(self, env: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(sorted(k for k, v in env.items() if _SECRET_NAME.search(k) or self._reveals_secret(v)))

    def _reveals_secret(self, value: str) -> bool:
        return any(
            s and (s == value or (len(s) >= _SHORTEST_PART and s in value)) for s in self._manifest.secrets
        )


def _shown(engine: Engine, request: LaunchRequest) -> tuple[str, ...]:
    """The argv as people may see it: made in the same way, from the manifest's words before they were filled in."""
    model = request.model
    # engine: command would take ${NAME} for one of its own placeholders.
    command = tuple(_REFERENCE.sub(r"${{\1}}", word) for word in model.shown_command)
    shown = replace(model, command=command, engine_args=model.shown_engine_args)
    return (*(model.shown_prefix or model.prefix), *engine.launch(replace(request, model=shown)).argv)


def exposed(spec: ProcessSpec) -> tuple[str, ...]:
    """Variables whose values are most likely secrets and stand in ``spec``'s argv: by their names, or by the flag before."""
    found: dict[str, None] = {}
    before = ""
    for word in spec.argv_shown:
        flag = before if before.startswith("-") else ""
        head, _, _ = word.partition("${")
        for name in _REFERENCE.findall(word):
            if looks_secret(name) or any(looks_secret(part) for part in _PART.findall(f"{flag} {head}")):
                found[name] = None
        before = word
    return tuple(found)


def _concurrency_limit(model: ModelSpec, engine: Engine, launch: Launch) -> int | None:
    """How many requests the replica works on at a time, for gateways to keep to; None: unknown.

    What a gateway sends beyond that waits in the engine, which knows neither API keys nor their priorities.
    A worker that registers itself says its own number, and a command may be any server.
    """
    if model.max_concurrency or launch.self_registering or engine.name == EngineName.COMMAND:
        return model.max_concurrency
    return engine.sequences(model)


def _ready_path(model: ModelSpec, launch: Launch) -> str:
    if model.ready_probe is not None:
        return model.ready_probe
    # Without a probe of liveness, an unknown server has no probe of readiness either.
    if model.probe or (model.probe is not None and model.engine is EngineName.COMMAND):
        return model.probe
    return launch.ready_path
