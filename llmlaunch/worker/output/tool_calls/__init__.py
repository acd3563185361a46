"""Tool calls in an answer's text: one module a way of writing them, and one parser that follows the text. Pure."""
