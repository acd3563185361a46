"""Who serves what right now. ``registry`` and ``dispatch`` are pure; ``app`` speaks HTTP."""
