"""One image file to pixels, in one way for training, evaluation and export."""

import contextlib
import io
import os
import stat
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

MOST_PIXELS = 4096  # Height and width of an image to train on.
# Photos are in memory when they are decoded: large blocks save a tenth of the time.
ImageFile.MAXBLOCK = 2**20
# What Pillow's own check calls an attack; it warns of half of that, which phones can take.
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
_GREY = ('1', 'L', 'LA', 'La', 'I', 'I;16', 'I;16L', 'I;16B', 'I;16N')


class Policy(NamedTuple):
    """How an image becomes an array; part of the key of the decode cache.

    Attributes:
      image_size: height and width in pixels; 0 keeps what the file has.
      resize: crop (the central square), squeeze (the aspect ratio is not kept) or pad (black
        borders).
      channels: 1 or 3.
    """

    image_size: int
    resize: str
    channels: int


class Decoded(NamedTuple):
    """An image and what its file said of it.

    Attributes:
      image_HWC: uint8.
      width, height: of the file, upright.
      mode: Pillow's name of the colour mode of the file, such as RGB, L or CMYK.
    """

    image_HWC: np.ndarray
    width: int
    height: int
    mode: str

    @property
    def is_grey(self) -> bool:
        """Whether the file has no colour by its mode."""
        return self.mode in _GREY


class UnreadableImageError(Exception):
    """The file holds no image that can be read; the text says why, in a few words."""


def decode(encoded: bytes | os.PathLike | np.ndarray, policy: Policy) -> Decoded:
    """Decodes one image.

    EXIF orientation is applied; transparency is laid over white (but in 16-bit images); 16-bit
    levels keep their upper 8 bits; of several frames the first counts; colour profiles are
    ignored. JPEGs are decoded at a half, a quarter or an eighth of their size where that is still
    at least `image_size` (Pillow's draft mode, scaling in the DCT): on average less than one level
    from decoding in full.

    Args:
      encoded: the bytes of a file, its path, or uint8 pixels [H, W, 1 or 3].
      policy: what to make of it.

    Raises:
      UnreadableImageError: for whatever is wrong with the file.
      MemoryError: it is too large for this machine.
    """
    if isinstance(encoded, np.ndarray):
        picture = Image.fromarray(encoded[..., 0] if encoded.shape[2] == 1 else encoded)
        return _fit(picture, picture.size, picture.mode, policy)
    try:
        content = encoded if isinstance(encoded, bytes) else _read(encoded)
        with Image.open(io.BytesIO(content)) as picture:
            return _fit(*_upright(picture, policy), policy)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_unidentified(content)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f'more than {_MAX_PIXELS // 10**6} million pixels: make it smaller'
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # Decoders of damaged files raise nearly anything.
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(reason[:200]) from error


def quiet() -> None:
    """Silences Pillow's warnings, which name no file; what matters is raised."""
    warnings.filterwarnings('ignore', module='PIL')


def _read(path: os.PathLike) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # Reading a pipe would wait for ever.
            raise UnreadableImageError('a folder, pipe or device, no file')
        with open(path, 'rb') as file:
            return file.read()
    except FileNotFoundError as error:
        raise UnreadableImageError('not there (a broken link, or deleted)') from error
    except PermissionError as error:
        raise UnreadableImageError('no permission to read it') from error


def _upright(picture: Image.Image, policy: Policy) -> tuple[Image.Image, tuple[int, int], str]:
    """Returns the picture upright as L or RGB, the size of the file upright, and its mode."""
    mode, size = picture.mode, picture.size
    if picture.format in ('JPEG', 'MPO') and policy.image_size:
        picture.draft(None, (policy.image_size, policy.image_size))
    picture.load()
    lying = picture.size
    with contextlib.suppress(Exception):  # EXIF that cannot be read says nothing of the rotation.
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.size != lying:
        size = size[::-1]
    if mode == 'F':
        raise UnreadableImageError('its pixels are floating-point numbers without a fixed range')
    if mode == 'I' or mode.startswith('I;16'):
        return _from_16_bits(picture), size, mode
    if picture.has_transparency_data:
        layer = picture.convert('RGBA')
        picture = Image.alpha_composite(Image.new('RGBA', layer.size, 'white'), layer)
    wanted = 'L' if mode in _GREY else 'RGB'
    return picture if picture.mode == wanted else picture.convert(wanted), size, mode


def _from_16_bits(picture: Image.Image) -> Image.Image:
    levels = np.asarray(picture)
    if levels.min() < 0 or levels.max() > 65535:
        raise UnreadableImageError('its pixels have 32 bits and no fixed range')
    # Some programs write 8-bit levels with 32 bits.
    shift = 0 if picture.mode == 'I' and levels.max() <= 255 else 8
    return Image.fromarray((levels >> shift).astype(np.uint8))


def _fit(picture: Image.Image, size: tuple[int, int], mode: str, policy: Policy) -> Decoded:
    """Resizes with anti-aliasing as the policy says, and sets the number of channels."""
    wanted = 'L' if policy.channels == 1 else 'RGB'
    if picture.mode != wanted:
        picture = picture.convert(wanted)
    side, box = policy.image_size, None
    if side and policy.resize == 'pad':
        picture = ImageOps.pad(picture, (side, side), Image.Resampling.BILINEAR)
    elif side and picture.size != (side, side):
        if policy.resize == 'crop':
            shorter = min(picture.size)
            left, top = ((length - shorter) / 2 for length in picture.size)
            box = (left, top, left + shorter, top + shorter)
        picture = picture.resize((side, side), Image.Resampling.BILINEAR, box, reducing_gap=2.0)
    pixels = np.asarray(picture)
    return Decoded(pixels[..., None] if pixels.ndim == 2 else pixels, *size, mode)


def _unidentified(content: bytes) -> str:
    if not content:
        return 'an empty file'
    if content[4:12] in (b'ftypheic', b'ftypheix', b'ftypmif1', b'ftypmsf1', b'ftyphevc'):
        return 'a HEIC photo, which is not supported: convert it to JPEG'
    if b'\0' not in content[:512] and content[:512].isascii():
        return 'a text file, no image'
    return 'no image of a known format'
