"""Keeps a plan running. ``loop`` is the only writer: events → ``core`` (pure) → effects."""
