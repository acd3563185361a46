"""Plans as JSON: one lossless form for the supervisor's socket, one public form for ``llmlaunch plan --json``.

The lossless form holds every environment value, secrets included. It belongs on the private socket and nowhere else;
everything that people see goes through :func:`plan_report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

from llmlaunch.errors import PlanError
from llmlaunch.planning.types import Component, GpuBudget, Plan, ProcessSpec, Rejection

_T = TypeVar("_T")
_OTHER_VERSION = "was it written by another version of llmlaunch?"


def spec_to_json(spec: ProcessSpec) -> dict[str, Any]:
    """``spec`` whole, secrets included, as values that ``json.dumps`` takes."""
    return _fields(spec)


def spec_from_json(data: object) -> ProcessSpec:
    """The inverse of :func:`spec_to_json`. A field that has a default may be missing: versions before may not have known it.

    Raises PlanError naming the field that is missing, unknown or of a wrong type.
    """
    return _decode(ProcessSpec, data, "process")


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """``plan`` whole, secrets included, as values that ``json.dumps`` takes."""
    return _fields(plan)


def plan_from_json(data: object) -> Plan:
    """The inverse of :func:`plan_to_json`, as :func:`spec_from_json`. Raises PlanError."""
    return _decode(Plan, data, "plan")


def plan_report(plan: Plan) -> dict[str, Any]:
    """What ``llmlaunch plan --json`` prints: a documented, stable shape without secrets. Sizes are bytes."""
    return {
        "deployment": plan.deployment,
        "fits": plan.fits,
        "processes": [_process_report(spec) for spec in plan.processes],
        "gpus": [_encode(gpu) for gpu in plan.gpus],
        "rejections": [_encode(rejection) for rejection in plan.rejections],
        "notes": list(plan.notes),
    }


def _process_report(spec: ProcessSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "component": spec.component.value,
        "model": spec.model,
        "names": list(spec.names),
        "engine": spec.engine,
        "host": spec.host,
        "port": spec.port,
        "address": spec.address,
        "gpus": list(spec.gpus),
        "mask": spec.mask,
        "vram_bytes": spec.vram_bytes,
        "argv": list(spec.shown_argv),
        "env": spec.shown_env,
        "reason": spec.reason,
        "engine_reason": spec.engine_reason,
    }


def _fields(value: ProcessSpec | Plan | GpuBudget | Rejection) -> dict[str, Any]:
    return {f.name: _encode(getattr(value, f.name)) for f in fields(value)}


def _encode(value: Any) -> Any:
    if isinstance(value, ProcessSpec | Plan | GpuBudget | Rejection):
        return _fields(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value.value if isinstance(value, Component) else value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "text", value)
    return value


def _integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(where, "an integer", value)
    return value


def _number(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(where, "a number", value)
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, "true or false", value)
    return value


def _component(value: object, where: str) -> Component:
    try:
        return Component(_text(value, where))
    except ValueError:
        raise _wrong(where, " | ".join(Component), value) from None


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise _wrong(where, "a list", value)
    return value


def _mapping(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    return {_text(k, where): _text(v, f"{where}.{k}") for k, v in value.items()}


def _many(decode: Any) -> Any:
    return lambda value, where: tuple(
        decode(item, f"{where}[{i}]") for i, item in enumerate(_list(value, where))
    )


def _optional(decode: Any) -> Any:
    return lambda value, where: None if value is None else decode(value, where)


# By the type a dataclass field is declared with; a field of a new type fails the round trip test until it is listed here.
_DECODERS: dict[Any, Any] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: _flag,
    Component: _component,
    str | None: _optional(_text),
    int | None: _optional(_integer),
    float | None: _optional(_number),
    Mapping[str, str]: _mapping,
    tuple[str, ...]: _many(_text),
    tuple[int, ...]: _many(_integer),
    tuple[ProcessSpec, ...]: _many(lambda value, where: _decode(ProcessSpec, value, where)),
    tuple[GpuBudget, ...]: _many(lambda value, where: _decode(GpuBudget, value, where)),
    tuple[Rejection, ...]: _many(lambda value, where: _decode(Rejection, value, where)),
}


_KINDS = (Plan, ProcessSpec, GpuBudget, Rejection)
_HINTS: dict[object, dict[str, Any]] = {kind: get_type_hints(kind) for kind in _KINDS}
_REQUIRED: dict[object, set[str]] = {
    kind: {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    for kind in _KINDS
}


def _decode(kind: type[_T], data: object, where: str) -> _T:
    if not isinstance(data, dict):
        raise _wrong(where, "an object", data)
    hints = _HINTS[kind]
    missing, unknown = _REQUIRED[kind] - data.keys(), data.keys() - hints.keys()
    if missing or unknown:
        what = [f"lacks {name}" for name in sorted(missing)]
        what += [f"has unknown {name}" for name in sorted(map(str, unknown))]
        raise PlanError(f"{where} {', '.join(what)}", hint=_OTHER_VERSION)
    return kind(**{name: _DECODERS[hints[name]](value, f"{where}.{name}") for name, value in data.items()})


def _wrong(where: str, expected: str, value: object) -> PlanError:
    # The value itself may be a secret; its type says enough.
    return PlanError(f"{where} is {type(value).__name__}, expected {expected}", hint=_OTHER_VERSION)
