"""The OpenAI API: one hop from a client to a worker, and nobody asked per request."""
