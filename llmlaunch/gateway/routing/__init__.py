"""Which replica answers a request: route table, choice, health, queue."""
