"""Text to tokens and back, prompts from chat templates included."""
