"""Makes a ``Plan`` of what the user wants, the machine has and the models need. Pure: everything comes in as values."""
