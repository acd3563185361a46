"""The supervisor's control API as its callers see it: wire types, client, and how a supervisor is found or started."""
