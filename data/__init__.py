"""What stands behind `input_pipeline.py`: sources, splits, augmentation, normalisation."""
