"""What the gateway tells of its requests: metrics, access log, traces."""
