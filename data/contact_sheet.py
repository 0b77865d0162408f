"""Many small images in one picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_CAPTION_SIDE = 96  # Least width of an image with a caption, in pixels.
_FONT_SIZE, _LINE, _GAP = 11, 14, 6


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


def captioned_sheet(
    images_NHWC: np.ndarray, captions: Sequence[Sequence[str]], columns: int = 8
) -> np.ndarray:
    """Tiles uint8 images into one picture [H, W, 3] with the lines of each caption below it.

    Lines that are wider than the image lose their beginning, since the end of a path tells more.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    factor = max(1, -(-_CAPTION_SIDE // images_NHWC.shape[2]))
    height, width = (factor * side for side in images_NHWC.shape[1:3])
    lines = max(map(len, captions))
    cell = height + lines * _LINE + _GAP, width + _GAP
    columns = min(columns, len(images_NHWC))
    rows = -(-len(images_NHWC) // columns)
    sheet = Image.new('RGB', (columns * cell[1], rows * cell[0]), 'white')
    draw = ImageDraw.Draw(sheet)
    for i, (image, caption) in enumerate(zip(images_NHWC, captions, strict=True)):
        top, left = (place * side for place, side in zip(divmod(i, columns), cell, strict=True))
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
        for row, text in enumerate(caption):
            draw.text((left, top + height + row * _LINE), _fitted(text, width, font), 'black', font)
    return np.asarray(sheet)


def _fitted(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength('…' + text) > width:
        text = text[1:]
    return '…' + text
