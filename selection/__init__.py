"""Choosing a net: candidates over shared folds, verdicts about them, and what they rest on."""
