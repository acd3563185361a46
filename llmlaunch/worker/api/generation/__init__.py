"""What all endpoints that generate text share: from a request body to engine requests, and their outputs and token counts."""
