"""API keys: who may ask for how much, and what happens to wrong keys."""
