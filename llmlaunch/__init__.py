"""llmlaunch: a list of models and a box of GPUs become one OpenAI-compatible endpoint, and stay up."""

__version__ = "0.1.0"
