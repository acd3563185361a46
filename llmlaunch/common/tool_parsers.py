"""Names of the formats in which models write tool calls. They are vLLM's where vLLM has one."""

from __future__ import annotations

AUTO = "auto"
"""The format that the chat template shows; any known one if it shows none."""
NONE = "none"
"""Calls are not looked for: they stay text."""
HARMONY = "openai"
"""gpt-oss's channels."""
TOOL_PARSERS = (
    AUTO, NONE, HARMONY, "hermes", "qwen3_coder", "glm45", "mistral", "llama3_json", "pythonic", "olmo3", "gemma", "granite",
    "phi4_mini_json", "kimi_k2", "deepseek_v3", "deepseek_v32", "minimax", "minimax_m2",
)  # fmt: skip
