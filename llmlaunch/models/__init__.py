"""What a model needs, read from the headers of its files, and where it comes from. Never imports torch."""
