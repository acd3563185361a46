"""What the gateway reads and changes in bodies: the model's name, the tokens that an answer took."""
