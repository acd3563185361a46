"""FastChat's own workers behind the gateway: OpenAI's API on our side, FastChat's generate protocol on theirs.

``transport`` looks like a connection to a worker that speaks OpenAI's API, so nothing else in the gateway knows of it.
``conversation``, ``request_translation`` and ``response_translation`` are pure; ``worker`` makes the calls.
"""
