"""Small rules that several rooms share, one module an idea. It uses no other room but ``errors``."""
