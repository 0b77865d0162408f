"""Sweeps: a space of configs, a study in an Optuna storage, workers, and what readers see of it."""
