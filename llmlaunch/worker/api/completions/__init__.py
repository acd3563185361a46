"""/v1/completions: text or token ids in, text out. One request may have several prompts and echo them."""
