"""Numbers as engines read them from a command line."""

from __future__ import annotations

import re

_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SI = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_IEC = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def is_number(text: str) -> bool:
    """Whether ``text`` is a number without a unit."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def plain(text: str) -> int:
    """An integer without a unit. Raises ValueError."""
    return int(text)


def vllm(text: str) -> int:
    """``32k`` is 32,000 and ``32K`` 32,768; only decimal units take a fraction. ``auto`` and -1 are -1. Raises ValueError.

    Source: ``human_readable_int_or_auto`` in vLLM's argparse_utils.py.
    """
    if text.strip().lower() == "auto":
        return -1
    return _with_unit(text, r"[kKmMgGtT]", _DECIMAL, _BINARY)


def sglang(text: str) -> int:
    """``32k`` is 32,000 and ``32Ki`` 32,768; ``K`` and ``m`` are no units. Raises ValueError.

    Source: ``human_readable_int`` in SGLang's utils/common.py.
    """
    return _with_unit(text, r"[kMGT]|[KMGT]i", _SI, _IEC)


def _with_unit(text: str, units: str, decimal: dict[str, int], binary: dict[str, int]) -> int:
    match = re.fullmatch(rf"(\d+(?:\.\d+)?)({units})", text.strip())
    if match is None:
        return int(text)
    number, unit = match.groups()
    # int() raises for a fraction of a binary unit, as the engines do.
    return int(float(number) * decimal[unit]) if unit in decimal else int(number) * binary[unit]
