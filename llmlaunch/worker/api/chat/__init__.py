"""/v1/chat/completions: a conversation in, an answer out, whole or streamed.

::

    ChatBody ──messages, tools──► chat template ──prepare──► engine requests … outputs ──answer──► response or events
"""
