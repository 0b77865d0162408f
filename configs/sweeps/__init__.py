"""Ready sweeps: each file is a question."""
