"""HTTP/1.1 on both sides: requests from clients, responses from workers, their framing and connections."""
