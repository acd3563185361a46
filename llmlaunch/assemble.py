"""Gather what a plan is made from (the manifest, the machine, the models, what runs) and make it.

This is the I/O around the pure :mod:`llmlaunch.planning.plan`; nothing is started and nothing is written.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from llmlaunch import extras
from llmlaunch.control.types import Deployed
from llmlaunch.engines import registry
from llmlaunch.engines.companions import companions
from llmlaunch.errors import ModelError, PlanError
from llmlaunch.hardware.types import Inventory
from llmlaunch.manifest.types import EngineName, Manifest, ModelSpec
from llmlaunch.models.facts import ModelFacts
from llmlaunch.planning.environment import child_environment, path_of, seen_from
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import Plan, PlanningContext, ProcessSpec

# Headers are read over the network for models that are not downloaded yet.
_INSPECTIONS_AT_ONCE = 8
NOTHING_DEPLOYED = Deployed()


def assemble(
    path: str | Path,
    *,
    env: Mapping[str, str] = os.environ,
    deployed: Deployed = NOTHING_DEPLOYED,
    gpus: str | None = None,
    name: str | None = None,
    check: Callable[[Manifest], None] | None = None,
) -> tuple[Manifest, Inventory, Plan]:
    """Read the manifest at ``path`` and plan it for this machine, or for the one that ``gpus`` describes.

    ``name`` replaces the manifest's own name of the deployment.
    ``deployed`` is what the deployment's supervisor runs now. ``gpus`` is a text like ``4xA100-80GB,2xL4`` or the path of a saved
    ``llmlaunch gpus --json``; ``check`` as for :func:`replan`.
    Raises ManifestError, ModelError, HardwareError, PlanError or PortTakenError.
    """
    from llmlaunch.manifest.load import load

    manifest = load(path, env)
    if name is not None:
        manifest = replace(manifest, name=name)
    inventory, made = replan(manifest, env=env, deployed=deployed, gpus=gpus, check=check)
    return manifest, inventory, made


def replan(
    manifest: Manifest,
    *,
    env: Mapping[str, str] = os.environ,
    deployed: Deployed = NOTHING_DEPLOYED,
    gpus: str | None = None,
    check: Callable[[Manifest], None] | None = None,
) -> tuple[Inventory, Plan]:
    """Plan a manifest that is already read, as ``scale`` does after it changed a number of replicas.

    ``check`` may refuse it for what is wrong with this machine's files; a simulated machine need not have them.
    """
    from llmlaunch.manifest.places import refuse_missing_places, with_env_files

    inventory = _inventory(gpus, env)
    here = not inventory.simulated
    if check is not None and here:
        check(manifest)
    if here:
        refuse_missing_places(manifest)
    manifest = with_env_files(manifest, required=here)
    facts = inspect_models(manifest, env)
    context = _planning_context(manifest, inventory, deployed, env)
    if here and any(model.engine is EngineName.AUTO for model in manifest.models):
        from llmlaunch.installed_engines import find_engines

        context = replace(context, installed=find_engines(manifest, facts, env, gpus=bool(inventory.gpus)))
    return inventory, plan(manifest, inventory, facts, context)


def inspect_models(manifest: Manifest, env: Mapping[str, str]) -> dict[str, ModelFacts]:
    """The facts of every model by :attr:`ModelSpec.model`. Raises ModelError with everything that cannot be found."""
    from llmlaunch.models.inspect import inspect

    wanted: dict[str, ModelSpec] = {}
    for model in manifest.models:
        if model.engine is not EngineName.COMMAND:
            wanted.setdefault(model.model, model)

    def look(model: ModelSpec) -> ModelFacts | ModelError:
        try:
            found = inspect(
                model.model, source=model.source, revision=model.revision, env={**env, **model.env}
            )
            _check_tokenizer(model, found)
            return found
        except ModelError as error:
            return error

    with ThreadPoolExecutor(min(len(wanted), _INSPECTIONS_AT_ONCE) or 1) as pool:
        found = dict(zip(wanted, pool.map(look, wanted.values()), strict=True))
        beside = _inspect_companions(manifest, env, pool)
    errors = {model: error for model, error in found.items() if isinstance(error, ModelError)}
    if errors:
        places = [f"{wanted[model].position}: " if wanted[model].position else "" for model in errors]
        messages = [place + error.message for place, error in zip(places, errors.values(), strict=True)]
        hints = dict.fromkeys(error.hint for error in errors.values() if error.hint)
        raise ModelError("\n".join(messages), hint="\n".join(hints))
    return beside | {model: facts for model, facts in found.items() if isinstance(facts, ModelFacts)}


def _inspect_companions(
    manifest: Manifest, env: Mapping[str, str], pool: ThreadPoolExecutor
) -> dict[str, ModelFacts]:
    """Facts of what engines load beside the models, by its name in engine_args; what cannot be read is left out."""
    from llmlaunch.models.companions import companion_facts

    base = Path(manifest.path or ".").absolute().parent
    wanted = [(item, model) for model in manifest.models for item in companions(model)]
    found = pool.map(lambda pair: companion_facts(pair[0], base, {**env, **pair[1].env}), wanted)
    return {item.source: facts for (item, _), facts in zip(wanted, found, strict=True) if facts}


def _check_tokenizer(model: ModelSpec, facts: ModelFacts) -> None:
    """Raise ModelError for a folder that the built-in engine could not serve, for want of a tokenizer."""
    from llmlaunch.models.reading.tokenizer import has_tokenizer

    folder = Path(facts.path)
    if (
        model.engine not in (EngineName.TRANSFORMERS, EngineName.AUTO)
        or facts.format == "gguf"
        or not folder.is_dir()
    ):
        return
    if not has_tokenizer(folder):
        raise ModelError(
            f"{folder} has no tokenizer: there is neither tokenizer.json nor tokenizer.model nor another in it",
            hint="copy the tokenizer's files into the model's folder, too",
        )


def _inventory(gpus: str | None, env: Mapping[str, str]) -> Inventory:
    if gpus is None:
        from llmlaunch.hardware.inventory import probe

        return probe(env)
    from llmlaunch.hardware.simulated import from_spec

    return from_spec(gpus)


def _planning_context(
    manifest: Manifest, inventory: Inventory, deployed: Deployed, env: Mapping[str, str]
) -> PlanningContext:
    from llmlaunch.hardware.cores import usable_cores
    from llmlaunch.hardware.gpu_usage import vram_by_component
    from llmlaunch.hardware.memory import main_memory
    from llmlaunch.hardware.ports import local_addresses, occupied_ports
    from llmlaunch.other_deployments import claimed_ports, promised_memory, running_beside
    from llmlaunch.supervision.gpu.measured_vram import load_measurements

    hosts = {manifest.controller.host, manifest.api.host, *(model.host for model in manifest.models)}
    # What is taken here says nothing about the other machine that a simulated box stands for.
    here = not inventory.simulated
    others = running_beside(manifest.name) if here else {}
    local = local_addresses()
    return PlanningContext(
        occupied_ports=(*occupied_ports(sorted(hosts)), *claimed_ports(others)) if here else (),
        deployment=manifest.name,
        running=deployed.specs,
        idle=deployed.idle,
        main_memory=main_memory().limit if here else None,
        promised=promised_memory(others, inventory),
        measured_vram=load_measurements(),
        python=sys.executable,
        local_addresses=local,
        unusable_hosts=_unusable(hosts, local) if here else {},
        used_vram=vram_by_component(inventory, manifest.name, deployed.devices) if here else {},
        env=_api_keys(manifest, env),
        absent=_absent_programs(manifest, env) if here else {},
        cores=usable_cores() if here else None,
    )


def _absent_programs(manifest: Manifest, env: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """By a model's first name: what its engine could run, could do without, and would not find on the model's PATH."""
    folder = str(Path(manifest.path).parent) if manifest.path else ""
    found = {}
    for model in manifest.models:
        # The only engine with one that the rules may choose for a model.
        engine = EngineName.LLAMACPP if model.engine is EngineName.AUTO else model.engine
        program = registry.get(engine).optional_program
        if program and shutil.which(program, path=seen_from(folder, path_of(model, env))) is None:
            found[model.names[0]] = frozenset((program,))
    return found


def _unusable(hosts: Collection[str], local: Collection[str]) -> dict[str, str]:
    """Names of other machines are left out: asking for them may take long, and they are refused anyhow."""
    from llmlaunch.hardware.ports import bind_problem

    ours = {name.lower() for name in local}
    names = [host for host in sorted(hosts) if host.lower() in ours or not host[-1:].isalpha()]
    return {host: why for host in names if (why := bind_problem(host))}


def refuse_unstartable(made: Plan, deployed: Deployed, env: Mapping[str, str]) -> None:
    """Raise PlanError for processes that could not start: their program is not there, or it lacks an extra.

    ``env`` is what processes inherit. What runs already is left alone.
    """
    running = {spec.name: spec for spec in deployed.specs if spec.name not in deployed.idle}
    new = []
    for spec in made.processes:
        before = running.get(spec.name)
        asked = (spec.argv, spec.env, spec.path_first, spec.workdir)
        if before is None or (before.argv, before.env, before.path_first, before.workdir) != asked:
            new.append(spec)
    _refuse_missing_programs(new, made, env)
    _refuse_missing_modules(new, made, env)
    _refuse_missing_extras(new, made, env)


def _refuse_missing_programs(specs: Sequence[ProcessSpec], made: Plan, env: Mapping[str, str]) -> None:
    """Raise PlanError for every program that is not where its process would look for it."""
    found, commands = [], []
    for spec in specs:
        places = child_environment(env, spec, made.private_env).get("PATH", os.defpath)
        # What a prefix runs is looked for as the prefix itself is.
        programs = dict.fromkeys((spec.argv[0], spec.program[0]))
        wrong = [_no_program(program, places, spec.workdir or made.workdir) for program in programs]
        found += [f"{_owner(spec)}: {text}" for text in wrong if text]
        commands += [
            extras.how_to_install(program) for program, text in zip(programs, wrong, strict=True) if text
        ]
    if found:
        known = ", ".join(dict.fromkeys(filter(None, commands)))
        raise PlanError(
            "\n".join(dict.fromkeys(found)),
            hint=f"nothing was started; install it{f' ({known})' if known else ''}, activate its environment (processes inherit the "
            "PATH of the shell that calls `up`), or say where it is: python: or bin: on the model",
            code="no_program",
        )


def _no_program(program: str, places: str, folder: str) -> str:
    """Why a process that starts in ``folder`` with the PATH ``places`` cannot run ``program``; empty: it can."""
    if os.sep in program:
        place = Path(folder, program)
        if not (os.path.isfile(place) and os.access(place, os.X_OK)):  # noqa: PTH113  # which knows no error
            return f"the program {program!r} does not exist or is not executable"
    elif on_path := shutil.which(program, path=seen_from(folder, places)):
        place = Path(on_path)
    else:
        return f"the program {program!r} was not found on PATH ({places})"
    interpreter = _missing_interpreter(place)
    return f"{place} is a script for {interpreter}, which does not exist" if interpreter else ""


def _refuse_missing_modules(specs: Sequence[ProcessSpec], made: Plan, env: Mapping[str, str]) -> None:
    """Raise PlanError for every engine that its interpreter should run as a module and does not have."""
    looked: dict[tuple[object, ...], bool] = {}
    found = []
    for spec in specs:
        module = extras.engine_module(spec.program)
        if not module:
            continue
        environ = child_environment(env, spec, made.private_env)
        if spec.engine != EngineName.COMMAND:
            environ = {**environ, "PYTHONSAFEPATH": "1"}  # as it will be started
        python, folder = _python_of(spec, made, environ)
        key = (module, python, folder, _python_places(environ))
        if key not in looked:
            looked[key] = bool(extras.absent_there((module,), python, environ=environ, cwd=folder))
        if looked[key]:
            command = extras.how_to_install(module, python)
            other = (
                "name another interpreter in command:"
                if spec.engine == EngineName.COMMAND
                else "say python: … on the model"
            )
            found.append(f"{_owner(spec)}: {module} is not installed in {python}: {command}, or {other}")
    if found:
        raise PlanError("\n".join(dict.fromkeys(found)), hint="nothing was started", code="no_module")


def _python_of(spec: ProcessSpec, made: Plan, environ: Mapping[str, str]) -> tuple[str, str]:
    """The interpreter that runs ``spec``, and the folder in which it starts."""
    program, folder = spec.program[0], spec.workdir or made.workdir
    return shutil.which(program, path=seen_from(folder, environ.get("PATH", os.defpath))) or program, folder


def _python_places(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What tells an interpreter where modules are."""
    return tuple(sorted((k, v) for k, v in environ.items() if k.startswith("PYTHON")))


def _refuse_missing_extras(specs: Sequence[ProcessSpec], made: Plan, env: Mapping[str, str]) -> None:
    """Raise PlanError for every process whose interpreter lacks an extra, with the command that installs it there."""
    looked: dict[tuple[object, ...], extras.Missing | None] = {}
    found, commands = [], []
    for spec in specs:
        environ = child_environment(env, spec, made.private_env)
        extra = extras.needed_by(spec.program, environ)
        if extra is None:
            continue
        python, folder = _python_of(spec, made, environ)
        # Replicas, and mostly all models, share an interpreter and what tells it where modules are.
        key = (extra.name, python, _python_places(environ))
        if key not in looked:
            looked[key] = extras.missing(extra, python, environ=environ, cwd=folder)
        if lacking := looked[key]:
            found.append(f"{_owner(spec)}: {lacking.message}")
            commands.append(f"install it: {lacking.command}")
            if extra is extras.LLAMACPP:
                commands.append("or put llama-server on the model's PATH")
            if extra is extras.OTEL:
                commands.append("or serve without traces: OTEL_TRACES_EXPORTER=none")
    if found:
        raise PlanError(
            "\n".join(dict.fromkeys(found)),
            hint="\n".join(("nothing was started", *dict.fromkeys(commands))),
            code="missing_extra",
        )


def _owner(spec: ProcessSpec) -> str:
    return f"model {spec.names[0]}" if spec.names else spec.name


def _missing_interpreter(script: Path) -> str:
    """The program that ``script`` names behind ``#!``, if there is none; empty otherwise. A moved venv leaves such scripts."""
    try:
        if not script.is_file():
            return ""
        with script.open("rb") as file:
            first = file.readline(256)
    except OSError:
        return ""
    words = first[2:].split(maxsplit=1) if first.startswith(b"#!") else []
    interpreter = os.fsdecode(words[0]) if words else ""
    there = os.path.exists(interpreter)  # noqa: PTH110  # which knows no error
    return interpreter if interpreter.startswith("/") and not there else ""


def _api_keys(manifest: Manifest, env: Mapping[str, str]) -> dict[str, str]:
    variable = manifest.api.api_keys_env
    if variable is None:
        return {}
    if not env.get(variable):
        raise PlanError(
            f"api_keys_env names {variable}, which is not set",
            hint=f"export {variable}=KEY[,KEY…], or leave api_keys_env out to serve without keys",
        )
    return {variable: env[variable]}
