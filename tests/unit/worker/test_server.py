"""A start imports nothing that only some requests, or only the loading, need."""

from __future__ import annotations

import subprocess
import sys

LATER = {"fastapi", "llguidance", "prometheus_client", "tokenizers", "torch", "transformers", "yaml"}


def test_a_start_imports_nothing_that_is_needed_later() -> None:
    code = f"import sys, llmlaunch.worker.server; print(*({LATER!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
