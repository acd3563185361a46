"""The gateway's own errors."""

from __future__ import annotations

import json

from llmlaunch.gateway import errors


def test_errors_are_openais_envelope() -> None:
    for reply in (
        errors.model_not_found('a"b'), errors.model_not_ready("m"), errors.queue_full("m", 3), errors.invalid_api_key(True),
        errors.bad_request("x", "model"), errors.replica_unavailable("m", "why"), errors.stopping(), errors.malformed_http("x"),
    ):  # fmt: skip
        error = json.loads(reply.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        if reply.status in (429, 503):
            assert b"retry-after: " in reply.fields
