"""Training: pure step, state, optimizer, device mapping, checkpoints, writers and the loop."""
