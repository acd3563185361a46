"""``engine_args`` as an engine's own flags.

===========================  =================================
``max_model_len: 8192``      ``--max-model-len 8192``
``c: 4096``                  ``-c 4096``
``enforce_eager: true``      ``--enforce-eager``
``enforce_eager: false``     nothing, as for null
``lora_modules: [a, b]``     ``--lora-modules a b``
``hf_overrides: {a: 1}``     ``--hf-overrides '{"a": 1}'``
===========================  =================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_KEY = re.compile(r"-{0,2}([A-Za-z][A-Za-z0-9]*(?:[-_.][A-Za-z0-9]+)*)")


def flag_name(key: str) -> str:
    """``max_model_len`` and ``--max-model-len`` are the same: ``max-model-len``. Empty when ``key`` can be no flag."""
    match = _KEY.fullmatch(key)
    return match[1].replace("_", "-") if match else ""


def lookup(args: Mapping[str, Any], *names: str) -> Any:
    """The value given under one of these flag names, or None."""
    return next((value for key, value in args.items() if flag_name(key) in names), None)


def to_flags(
    args: Mapping[str, Any], *, joined: bool = True, short: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """``args`` as words of a command line, in their order.

    ``joined``: text that starts with a dash is written ``--flag=-text``, or argparse would take it for another flag.
    ``short``: longer names that this engine writes with one dash all the same, as in ``-ngl 20``.
    """
    words: list[str] = []
    for key, value in args.items():
        name = flag_name(key)
        flag = f"-{name}" if len(name) == 1 or name in short else f"--{name}"
        if value is None or value is False:
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, list | tuple):
            words += [flag, *map(_word, value)]
        elif joined and isinstance(value, str) and value.startswith("-"):
            words.append(f"{flag}={value}")
        else:
            words += [flag, _word(value)]
    return tuple(words)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def invalid_flags(args: Mapping[str, Any], owned: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each key that is not a valid flag, is given twice, or is set by the plan.

    ``owned`` maps flag names to what to write in the manifest instead.
    """
    seen: dict[str, str] = {}
    for key in args:
        name = flag_name(str(key))
        if not name:
            yield f"engine_args: {key!r} is not a valid flag; expected a name like max_model_len"
        elif name in owned:
            yield f"engine_args: {key} is set by the plan; {owned[name]}"
        elif name in seen:
            yield f"engine_args: {seen[name]} and {key} are the same flag"
        seen.setdefault(name, str(key))


def positive(args: Mapping[str, Any], *names: str) -> Iterator[str]:
    """A sentence for each of these flags whose value is not an integer above 0."""
    for name in names:
        value = lookup(args, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            yield f"engine_args: {name.replace('-', '_')} is {value!r}, expected an integer above 0"


def repeated(args: Mapping[str, Any], keys: Mapping[str, object]) -> Iterator[str]:
    """A sentence for each flag in ``keys`` (flag name → the model's own key's value) that engine_args repeats."""
    for name, value in keys.items():
        if value is not None and lookup(args, name) is not None:
            yield f"engine_args: {name.replace('-', '_')} is given twice; remove one of the two"
