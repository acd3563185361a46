"""The KV cache: its size and layout, attention over it, and CUDA graphs."""
