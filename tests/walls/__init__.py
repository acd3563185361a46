"""The walls of llmlaunch: its rooms, and which of them may import which. ``python -m tests.walls`` prints them."""
