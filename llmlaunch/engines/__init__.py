"""How to run each engine: argv, environment, probe paths, memory rule. Pure; one file an engine."""
