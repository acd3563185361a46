"""Process trees: spawned under a shim, watched, killed to the last grandchild, and found again after a crash."""
