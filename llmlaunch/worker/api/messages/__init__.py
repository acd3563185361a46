"""/v1/messages: Anthropic's Messages API, on top of chat.

::

    MessagesBody ──anthropic.request_translation──► a ChatBody ──chat.prepare──► … chunks ──anthropic──► message or events
"""
