"""Metrics, the access log and traces of the gateway's requests."""
