"""Who may ask for how much: API keys, their rates, and keys that fail."""
