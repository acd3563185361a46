"""Refuse a manifest whose gateway could not start: its API keys and its certificate are read before anything is planned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmlaunch.errors import PlanError, UsageError

if TYPE_CHECKING:
    from llmlaunch.manifest.types import Manifest


def check_gateway_files(manifest: Manifest) -> None:
    """Raise PlanError for an ``api_keys_file``, a ``tls_cert`` or a ``tls_key`` that the gateway could not use."""
    api = manifest.api
    try:
        if api.api_keys_file is not None:
            from llmlaunch.gateway.limits.keys import load_key_ring

            load_key_ring(Path(api.api_keys_file), None)
        if api.tls_cert is not None and api.tls_key is not None:
            from llmlaunch.gateway.http1.tls import Certificate

            Certificate(Path(api.tls_cert), Path(api.tls_key))
    except UsageError as error:
        raise PlanError(error.message, hint=error.hint) from None
