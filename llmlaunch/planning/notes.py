"""What a plan has to say beside its figures: one sentence each, for people."""

from __future__ import annotations

from collections.abc import Mapping

from llmlaunch.common.addresses import is_loopback
from llmlaunch.engines import capability, flags, registry
from llmlaunch.hardware.types import Inventory
from llmlaunch.manifest.types import ApiSpec, GpuAuto, Manifest
from llmlaunch.planning import devices, specs
from llmlaunch.planning.pool import DevicePool
from llmlaunch.planning.replicas import Replica
from llmlaunch.planning.types import ProcessSpec


def unknown_flags(manifest: Manifest) -> list[str]:
    """Notes on engine_args that the engine, as far as it is known here, does not have."""
    found = [
        f"{model.names[0]}: {text}"
        for model in manifest.models
        for text in flags.notes(model.engine_args, registry.get(model.engine).flags)
    ]
    return list(dict.fromkeys(found))


def exposed_secrets(workers: Mapping[str, ProcessSpec], replicas: list[Replica]) -> list[str]:
    """Notes on secrets that command lines show."""
    found: dict[str, None] = {}
    for replica in replicas:
        spec = workers.get(replica.name)
        for name in specs.exposed(spec) if spec else ():
            what = f"{replica.model.names[0]}: the value of ${{{name}}} is part of its command line, which every user of"
            found[f"{what} this machine can read; env: passes a value unseen"] = None
    return list(found)


def of_machine(inventory: Inventory) -> tuple[str, ...]:
    """What was noticed about the machine; why there is no GPU is said where it matters."""
    return (inventory.note,) if inventory.note and inventory.gpus and not inventory.simulated else ()


def open_endpoint(api: ApiSpec) -> list[str]:
    """Whether others can use the endpoint without a key."""
    if api.api_keys_file or api.api_keys_env or is_loopback(api.host):
        return []
    return [
        f"anyone who can reach this machine can use the endpoint: it listens on {api.host} and asks for no key; "
        "set api_keys_file or api_keys_env under api, or host: 127.0.0.1"
    ]


def unread_companions(replicas: list[Replica]) -> list[str]:
    """What is loaded beside a model and could not be looked at."""
    found: dict[str, None] = {}
    for replica in replicas:
        for item in replica.facts.companions if replica.facts else ():
            if item.facts is None and replica.model.vram_bytes is None:
                who = f"{replica.model.names[0]}: its {item.role.value} {item.source}"
                found[
                    f"{who} was not found or could not be read, so its memory is not counted; vram: says how much"
                ] = None
    return list(found)


def on_the_cpu(replicas: list[Replica], workers: Mapping[str, ProcessSpec], pool: DevicePool) -> list[str]:
    """Models that run on the CPU although the manifest did not say so."""
    found: dict[str, None] = {}
    for replica in replicas:
        spec = workers.get(replica.name)
        if spec is None or spec.gpus or not isinstance(replica.model.gpus, GpuAuto):
            continue
        why = pool.note or "this machine has no GPU"
        if pool.survey.devices:
            why = "it was started there, before there was a GPU to use"
        found[f"{replica.model.names[0]} runs on the CPU: {why}"] = None
    return list(found)


def old_gpus(
    replicas: list[Replica], workers: Mapping[str, ProcessSpec], survey: devices.Survey
) -> list[str]:
    """What models cannot do as well as they might on the GPUs that they got; once for each model and kind of GPU."""
    found: dict[tuple[int, str], str] = {}
    for replica in replicas:
        spec = workers.get(replica.name)
        for uuid in spec.gpus if spec else ():
            device = survey.find(uuid)
            if replica.facts is None or isinstance(device, str) or device.capability is None:
                continue
            note = capability.remark(
                replica.engine, replica.model, replica.facts, device.capability, device.called
            )
            if note:
                found.setdefault((replica.group, device.name), note)
    return list(found.values())
