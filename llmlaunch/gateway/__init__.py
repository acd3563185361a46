"""The OpenAI endpoint: one hop from a client to a worker, without asking the controller for each request."""
