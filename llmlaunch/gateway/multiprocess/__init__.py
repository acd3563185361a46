"""Several gateway processes behind one port, and the counters that they share."""
