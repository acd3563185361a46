"""Chat templates: what a model's own takes, and how a conversation is brought into that form."""
