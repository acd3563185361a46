"""Who may ask for how much: API keys, rates, keys that fail, and the memory that request bodies take."""
