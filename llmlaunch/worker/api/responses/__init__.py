"""/v1/responses: OpenAI's second way to ask for an answer. It is chat in other words, and remembers what was said.

::

    body, earlier turns ──items──► a ChatBody ──chat.prepare──► tokens … deltas ──writer──► items and events
                                                                                     └──► store, for the next turn
"""

from llmlaunch.worker.api.responses.call import Call, events, prepare, whole
from llmlaunch.worker.api.responses.store import Store, Turn

__all__ = ["Call", "Store", "Turn", "events", "prepare", "whole"]
