"""Many small images in one picture."""

import numpy as np


def contact_sheet(images_NHWC: np.ndarray, columns: int = 8, min_side: int = 32) -> np.ndarray:
    """Tiles uint8 images into one picture [H, W, 3], enlarging small ones by whole pixels."""
    images = np.repeat(images_NHWC, 3, axis=-1) if images_NHWC.shape[-1] == 1 else images_NHWC
    factor = max(1, -(-min_side // images.shape[1]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    images = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = -(-len(images) // columns)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), 255, np.uint8)
    grid = np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])
    return np.concatenate(np.concatenate(grid, axis=1), axis=1)
