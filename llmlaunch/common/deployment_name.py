"""What a deployment may be called. The name is part of paths and command lines, so the rule is narrow. Pure."""

from __future__ import annotations

import re

LONGEST = 63
"""Characters, as in a DNS label (RFC 1035, 2.3.4)."""
PATTERN = rf"[a-z0-9][a-z0-9._-]{{0,{LONGEST - 1}}}"
"""The rule as a regular expression, in the dialect that JSON Schema shares with Python."""
RULE = f"lowercase letters, digits, '.', '_' and '-', at most {LONGEST} characters, starting with a letter or digit"


def is_deployment_name(text: str) -> bool:
    """Whether a deployment may be called ``text``."""
    return re.fullmatch(PATTERN, text) is not None
