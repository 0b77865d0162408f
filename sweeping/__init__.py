"""Sweeps: many runs over a space of configs, and what they came to."""
