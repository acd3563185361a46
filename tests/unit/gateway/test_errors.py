"""The gateway's own errors."""

from __future__ import annotations

import json

from llmlaunch.gateway import errors


def test_errors_are_openais_envelope() -> None:
    for reply in (
        errors.unknown_model('a"b'), errors.model_not_ready("m"), errors.too_many("m", 3), errors.wrong_key(True),
        errors.bad_request("x", "model"), errors.no_answer("m", "why"), errors.stopping(), errors.bad_http("x"),
    ):  # fmt: skip
        error = json.loads(reply.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        if reply.status in (429, 503):
            assert b"retry-after: " in reply.fields
