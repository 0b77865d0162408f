"""Configs: `default.py` states every field, the other files differences."""
