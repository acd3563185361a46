"""APIs other than OpenAI's that the gateway understands, each translated to OpenAI's and back."""
