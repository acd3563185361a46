"""How verbs show what they have to say: tables, progress, logs that are followed."""
