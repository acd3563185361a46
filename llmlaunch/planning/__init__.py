"""From what the user wants, the machine has and the models need to a ``Plan``. Pure: everything comes in as values."""
