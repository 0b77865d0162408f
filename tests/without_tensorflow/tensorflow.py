"""Stands before TensorFlow in the path of commands whose events nobody reads: it takes seconds."""

raise ImportError('no tensorflow here')
