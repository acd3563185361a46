"""HTTP/1.1 on both sides: requests from clients, answers from workers, their framing and connections."""
