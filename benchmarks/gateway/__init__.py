"""What a request costs at the gateway, beside nginx in the same run. ``python -m benchmarks.gateway``."""
