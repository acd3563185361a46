"""Ollama's API, translated to OpenAI's and back."""
