"""Anthropic's Messages API, translated to OpenAI's chat completions and back. Pure; used by the gateway and the worker.

::

    Messages body ──request_translation──► chat body ──► an engine ──► chat completion ──response_translation──► message
                                                          └──► chunks ──stream_translation──► events

Source: https://platform.claude.com/docs/en/api/messages and the types of the ``anthropic`` package.
"""
