"""The built-in engine's server. The only room with torch and transformers."""
