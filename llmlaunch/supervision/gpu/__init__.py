"""What components really take of GPUs: whether a stop has freed its memory, and what a load took."""
