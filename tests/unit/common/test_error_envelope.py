from __future__ import annotations

import json

from openai.types.shared import ErrorObject

from llmlaunch.common.error_envelope import INVALID_REQUEST, envelope


def test_openai_s_own_library_reads_it() -> None:
    sent = json.loads(json.dumps(envelope("no such model", INVALID_REQUEST, "model", "model_not_found")))
    read = ErrorObject.model_validate(sent["error"])
    assert (read.message, read.type) == ("no such model", "invalid_request_error")
    assert (read.param, read.code) == ("model", "model_not_found")


def test_what_is_not_known_is_null() -> None:
    assert envelope("failed", "server_error")["error"]["param"] is None
