"""What the gateway reads in bodies, and the little that it changes there: model names and usage."""
