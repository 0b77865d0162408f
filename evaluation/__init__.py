"""Behind `evaluate.py`: what a trained net knows, where it fails, and what it costs."""
