"""Talking to the endpoint from a terminal: ``chat`` and ``test``."""
