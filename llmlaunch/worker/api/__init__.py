"""The worker's HTTP endpoints: what each takes, and what it answers."""
