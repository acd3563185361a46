"""The flags of each engine, as its own parser had them when they were recorded."""
