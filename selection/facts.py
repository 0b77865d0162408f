"""What the method must know of a data set."""

from typing import NamedTuple


class Facts(NamedTuple):
    """Of a data set.

    Attributes:
      holds: `images`, `rows` or `windows`.
      shape: of an example as it is stored; of images of several sizes the smallest: height, width
        and channels.
      outputs: of the nets: classes, or 1 where labels are numbers.
      resizable: whether images are files, which are resized to any size.
      augment: of the base config.
    """

    holds: str
    shape: tuple[int, ...]
    outputs: int
    resizable: bool
    augment: str = 'none'
