"""From the name on the command line to a model in memory: locate, convert, quantise, place."""
