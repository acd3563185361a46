"""What the gateway reads and changes in bodies: the model's name and the token usage."""
