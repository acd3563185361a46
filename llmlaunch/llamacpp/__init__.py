"""llama.cpp's server from a Python package (xllamacpp), for machines without ``llama-server``: the same flags and endpoints."""
