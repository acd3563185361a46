"""Translates OpenAI's API to the protocol of FastChat's own workers.

``transport`` looks like a connection to a worker with OpenAI's API, so nothing else in the gateway knows of FastChat.
``conversation``, ``request_translation`` and ``response_translation`` are pure; ``worker`` makes the calls.
"""
