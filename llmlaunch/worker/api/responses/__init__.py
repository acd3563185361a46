"""/v1/responses: OpenAI's Responses API, on top of chat, with a memory of earlier responses.

::

    body, earlier turns ──items──► a ChatBody ──chat.prepare──► outputs … deltas ──item_writer──► items and events
                                                                                       └──► store, for the next turn
"""
