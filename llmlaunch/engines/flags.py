"""``engine_args`` as an engine's own flags, told apart by its :class:`FlagTable`.

====================================  ====================================================
``max_model_len: 8192``               ``--max-model-len 8192``
``c: 4096``, ``-dcp: 2``              ``-c 4096``, ``-dcp 2``
``enforce_eager: true``               ``--enforce-eager``
``enforce_eager: false``              ``--no-enforce-eager``, or refused where there is no such flag
``flash_attn: false``                 ``--flash-attn off``, where the flag takes these words
``seed: null``                        nothing
``lora_modules: [a, b]``              ``--lora-modules a b``
``hf_overrides: {a: 1}``              ``--hf-overrides '{"a": 1}'``
====================================  ====================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmlaunch.common.spelling import nearest
from llmlaunch.engines.flag_table import Flag, FlagTable, Match
from llmlaunch.engines.units import is_number


def to_flags(args: Mapping[str, Any], table: FlagTable) -> tuple[str, ...]:
    """``args`` as words of a command line, in their order. They have no :func:`problems`."""
    return tuple(word for key, value in args.items() for word in _words(table, table.find(key), value))


def _words(table: FlagTable, match: Match, value: Any) -> list[str]:
    spelling, flag = match.spelling, match.flag if match.whole else None
    if value is None:
        return []
    if isinstance(value, bool):
        return _said(match, value) or []
    if isinstance(value, list | tuple) and not (flag and flag.kind == "json" and not flag.several):
        texts = [_text(item) for item in value]
        if table.commas and not (flag and flag.several):
            return [spelling, ",".join(texts)]
        if flag and flag.kind == "json":
            return [word for text in texts for word in (spelling, text)]
        return [spelling, *texts]
    if table.joined and isinstance(value, str) and value.startswith("-"):
        return [f"{spelling}={value}"]
    return [spelling, _text(value)]


def _said(match: Match, value: bool) -> list[str] | None:
    """The words that say yes or no to a flag; None: there are none."""
    spelling, flag = match.spelling, match.flag
    if not match.whole:
        return [spelling, _text(value)]
    if flag is None:
        return [spelling] if value else None
    yes, _, no = flag.kind.partition("|")
    if no:
        return [spelling, yes if value else no]
    if value:
        return [spelling] if not flag.kind or flag.several == "?" else None
    opposite = flag.opposite(flag.full(spelling))
    return [opposite] if opposite and not flag.kind else None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def problems(
    args: Mapping[str, Any], table: FlagTable, owned: Mapping[str, str], *, complete: bool = False
) -> Iterator[str]:
    """A sentence for each key that is no flag, is set by the plan, is given twice, or has a value that the engine refuses.

    ``owned`` maps names, without dashes, to what to write in the manifest instead. ``complete``: the table is of the very version
    that will run, so what it does not have is refused; otherwise see :func:`notes`.
    """
    seen: dict[object, str] = {}
    for name, value in args.items():
        key = str(name)
        match = table.find(key)
        said = _no_flag(key, match, table, owned, complete) or _no_value(key, match, value, table)
        this = match.flag or match.spelling
        if not said and match.whole and this in seen:
            said = f"{seen[this]} and {key} are the same flag"
        if match.whole:
            seen.setdefault(this, key)
        if said:
            yield f"engine_args: {said}"


def _no_flag(key: str, match: Match, table: FlagTable, owned: Mapping[str, str], complete: bool) -> str:
    if not match.spelling:
        return f"{key!r} is not a valid flag; expected a name like max_model_len"
    if (instead := _owned(match.flag, match.spelling, owned)) is not None:
        full = match.flag.name if match.flag else match.spelling
        known = key.replace("_", "-").lstrip("-") == full.lstrip("-")
        return f"{key}{'' if known else f' is {full}, which'} is set by the plan; {instead}"
    for flag in match.candidates if match.flag is None else ():
        if (instead := _owned(flag, "", owned)) is not None:
            return f"{key} could be {flag.name}, which is set by the plan ({instead}); write the flag in full"
    if len(match.candidates) > 1:
        names = " or ".join(flag.name for flag in match.candidates[:3])
        return f"{key} could be {names}; write the flag in full"
    if complete and match.flag is None:
        return _unknown(key, match, table)
    return ""


def _owned(flag: Flag | None, spelling: str, owned: Mapping[str, str]) -> str | None:
    names = flag.names if flag else (spelling,)
    return next((owned[bare] for name in names if (bare := name.lstrip("-")) in owned), None)


def _unknown(key: str, match: Match, table: FlagTable) -> str:
    names = [name for flag in table.flags for name in (*flag.names, *flag.negatives) if len(name) > 3]
    near = nearest(match.spelling, names, cutoff=0.75)
    return f"{key}: {table.version} has no flag {match.spelling}" + (
        f"; did you mean {near}?" if near else ""
    )


def notes(args: Mapping[str, Any], table: FlagTable) -> Iterator[str]:
    """A sentence for each flag that ``table`` does not have. Another version may have it, so it is passed on."""
    for name in args if table.text else ():
        match = table.find(str(name))
        if match.spelling and match.flag is None and not match.candidates:
            said = _unknown(str(name), match, table)
            yield f"engine_args: {said}{'' if said.endswith('?') else '.'} It is passed on, in case another version has it"


def _no_value(key: str, match: Match, value: Any, table: FlagTable) -> str:
    flag = match.flag
    if value is None or not match.whole:
        return ""
    if isinstance(value, bool):
        return "" if _said(match, value) else _no_word(key, match, value, table)
    if flag is None:
        return ""
    if not flag.kind:
        return f"{key} is {value!r}, but {flag.name} is a switch; write true, or null to leave it out"
    if isinstance(value, list | tuple):
        if flag.several == "2" and len(value) != 2:
            return f"{key} takes two values"
        if not flag.several and not table.commas and flag.kind != "json":
            return f"{key} is a list, but {flag.name} takes one value"
        why = next((text for item in value if (text := _expected(flag, item, table))), "")
    else:
        why = _expected(flag, value, table)
    return why and f"{key} is {value!r}, {why}"


def _no_word(key: str, match: Match, value: bool, table: FlagTable) -> str:
    word = _text(value)
    if match.flag is None:
        return f"{key} is {word}, but {table.version} is not known to have {match.spelling} or a flag that negates it; remove it"
    if match.flag.kind:
        return f"{key} is {word}, but {match.flag.name} takes a value; write that, or null to leave it out"
    return (
        f"{key} is {word}, but {table.version} has no flag that negates {match.flag.name}, which is off unless given; "
        "write null to leave it out"
    )


def _expected(flag: Flag, value: Any, table: FlagTable) -> str:
    """What the engine's parser expects instead of ``value``; empty: it reads the number that is written."""
    text = value if isinstance(value, str) else None
    if flag.kind == "number":
        # C's conversions stop at the first character that is no digit.
        cut = text is not None and text[:1].isdigit() and not is_number(text)
        return "of which the engine reads the first digits; write the number" if cut else ""
    if flag.kind not in ("int", "count", "float") or text in ("", "None"):
        return ""
    if flag.kind == "float":
        fits = is_number(text) if text is not None else isinstance(value, int | float)
        return "" if fits and not isinstance(value, bool) else "expected a number"
    if flag.kind == "count":
        fits = table.read(value) is not None
    else:
        fits = text.strip("+- ").isdecimal() if text is not None else table.read(value) is not None
    units = f", in the units of {table.version}" if flag.kind == "count" and text else ""
    return "" if fits else f"expected an integer{units}"


def positive(args: Mapping[str, Any], table: FlagTable, *names: str) -> Iterator[str]:
    """A sentence for each of these flags that is given a number below 1."""
    for name in names:
        number = table.integer(args, name)
        if number is not None and number < 1:
            yield f"engine_args: {name.replace('-', '_')} is {table.value(args, name)!r}, expected an integer above 0"


def repeated(args: Mapping[str, Any], table: FlagTable, keys: Mapping[str, object]) -> Iterator[str]:
    """A sentence for each flag in ``keys`` (flag name → the model's own key's value) that engine_args repeats."""
    for name, value in keys.items():
        if value is not None and table.value(args, name) is not None:
            yield f"engine_args: {name.replace('-', '_')} is given twice; remove one of the two"
