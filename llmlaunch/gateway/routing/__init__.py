"""Which replica answers a request, and when: route table, choice, queue and retries."""
