"""Run folders in, one HTML page out; reads files only, without JAX."""
