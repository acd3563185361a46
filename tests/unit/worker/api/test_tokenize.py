"""Bodies of the endpoints about tokens: an error says what this endpoint takes."""

from __future__ import annotations

import pytest

from llmlaunch.worker.api.completions.protocol import CompletionBody
from llmlaunch.worker.api.protocol import RequestBody, parse
from llmlaunch.worker.api.tokenize import CountBody, TokenizeBody
from llmlaunch.worker.errors import BadRequest


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (TokenizeBody, "prompt: input should be a valid string, not 5"),
        (CountBody, "prompt: input should be a valid string, not 5"),
        (CompletionBody, "prompt must be a string, a list of strings, a list of token ids, or a list of such lists"),
    ],
)  # fmt: skip
def test_an_invalid_prompt_is_refused_with_what_the_endpoint_takes(
    kind: type[RequestBody], expected: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(kind, b'{"model": "m", "prompt": 5}')
    assert refused.value.message == expected
    assert refused.value.param == "prompt"
