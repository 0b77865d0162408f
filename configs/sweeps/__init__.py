"""Sweeps: which nets are trained and compared, and with what."""
