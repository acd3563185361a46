"""The KV cache: where keys and values of all requests lie, and CUDA graphs over them."""
