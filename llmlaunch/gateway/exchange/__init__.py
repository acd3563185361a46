"""One request on its way to a replica, and the answer on its way back."""
