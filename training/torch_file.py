"""Reads the tensors of a PyTorch file (.pth, .pt) without PyTorch, and without running its code.

Such a file is a pickle that names functions to call. Only the few that rebuild tensors are known
here, so nothing else can be called.
"""

import collections
import pathlib
import pickle
import struct
import zipfile
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # First object of a file of PyTorch before 1.6.
_DTYPES = {
    'DoubleStorage': np.float64, 'FloatStorage': np.float32, 'HalfStorage': np.float16,
    'BFloat16Storage': ml_dtypes.bfloat16, 'LongStorage': np.int64, 'IntStorage': np.int32,
    'ShortStorage': np.int16, 'CharStorage': np.int8, 'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
}  # fmt: skip


def load(path: pathlib.Path) -> Any:
    """Returns what the file holds, usually arrays by name.

    Raises:
      ValueError: it is no such file, damaged, or holds more than tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            return _load_zip(path)
        with path.open('rb') as file:
            return _load_stream(file, path.stat().st_size)
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, AttributeError,
            struct.error, zipfile.BadZipFile) as error:  # fmt: skip
        raise ValueError(str(error) or 'it ends too early') from error


class _Storage(NamedTuple):
    """The memory of tensors, [N], of one type."""

    values: np.ndarray


class _Unpickler(pickle.Unpickler):
    """Knows tensors, their storages and ordered dictionaries; nothing else."""

    def __init__(self, file: BinaryIO, read: Any):
        super().__init__(file)
        self._read = read

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        if module == 'torch._utils' and name in _REBUILD:
            return _REBUILD[name]
        if module == 'torch' and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        raise pickle.UnpicklingError(f'it holds more than tensors: {module}.{name}')

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count, *_ = pid
        return self._read(dtype, key, count)


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple, stride: tuple, *_: Any
) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= len(storage.values)):
        raise pickle.UnpicklingError('a tensor reaches beyond its memory')
    values = storage.values[offset:]
    strides = [step * values.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(values, size, strides, writeable=False)


_REBUILD = {
    '_rebuild_tensor_v2': _rebuild_tensor,
    '_rebuild_parameter': lambda tensor, *_: tensor,
}


def _load_zip(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if name.endswith('/data.pkl')]
        if len(inside) != 1:
            raise ValueError('it is a zip file without the one data.pkl of PyTorch')
        folder = inside[0].removesuffix('data.pkl')
        storages: dict[str, _Storage] = {}

        def read(dtype: np.dtype, key: str, count: int) -> _Storage:
            if key not in storages:
                content = archive.read(f'{folder}data/{key}')
                storages[key] = _Storage(np.frombuffer(content, dtype))
            return storages[key]

        with archive.open(inside[0]) as file:
            return _Unpickler(file, read).load()  # type: ignore[arg-type]


def _load_stream(file: BinaryIO, file_bytes: int) -> Any:
    """Reads the format before PyTorch 1.6: pickles, then the storages one after another."""
    storages: dict[str, _Storage] = {}

    def read(dtype: np.dtype, key: str, count: int) -> _Storage:
        if not 0 <= count * dtype.itemsize <= file_bytes:
            raise pickle.UnpicklingError('it ends too early')
        if key not in storages:
            storages[key] = _Storage(np.zeros(count, dtype))
        return storages[key]

    if _Unpickler(file, read).load() != _MAGIC:
        raise pickle.UnpicklingError('it is no file of PyTorch')
    for _ in ('protocol version', 'system'):
        _Unpickler(file, read).load()
    content = _Unpickler(file, read).load()
    for key in _Unpickler(file, read).load():
        values = storages[key].values
        (count,) = struct.unpack('<q', file.read(8))
        raw = file.read(values.nbytes)
        if count != len(values) or len(raw) != values.nbytes:
            raise pickle.UnpicklingError('it ends too early')
        values[:] = np.frombuffer(raw, values.dtype)
    return content
