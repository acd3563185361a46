"""How the arithmetic is done: packed weights, fused layers, threads, and what need not be imported."""
