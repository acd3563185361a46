"""From what the command line names to a model in memory: find, convert, quantise, place."""
