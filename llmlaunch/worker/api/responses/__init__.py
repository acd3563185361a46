"""/v1/responses: OpenAI's Responses API, on top of chat, with a memory of earlier responses.

::

    body, earlier turns ──items──► a ChatBody ──chat.prepare──► tokens … deltas ──writer──► items and events
                                                                                     └──► store, for the next turn
"""

from llmlaunch.worker.api.responses.call import ResponseCall, events, prepare, whole
from llmlaunch.worker.api.responses.store import ResponseStore, StoredTurn

__all__ = ["ResponseCall", "ResponseStore", "StoredTurn", "events", "prepare", "whole"]
