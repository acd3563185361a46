"""Faster computation: oneDNN weights, fused layers, thread count, lean imports; and the device."""
