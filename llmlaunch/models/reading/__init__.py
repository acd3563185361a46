"""Facts from a model's files: config.json, and the headers of safetensors and GGUF files. Reads no weights."""
