"""Reads the tensors of a PyTorch file (.pth, .pt) without PyTorch, and without running its code.

Such a file is a pickle: a program that names functions, calls them and sets attributes. Here every
name stands for an object of ours that holds nothing and can be told nothing, and what comes out
are descriptions of tensors; arrays are made of them afterwards, within the memory they describe.
"""

import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

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
    """Returns what the file holds: arrays, usually by name, in dictionaries and lists.

    Raises:
      ValueError: it is no such file, damaged, or holds more than tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            return _load_zip(path)
        with path.open('rb') as file:
            return _load_stream(file, path.stat().st_size)
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, AttributeError,
            OverflowError, struct.error, zipfile.BadZipFile) as error:  # fmt: skip
        raise ValueError(str(error) or 'it ends too early') from error


class _Inert:
    """An object whose attributes a pickle cannot set."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError('it changes what it has no business with')


class _DType(_Inert):
    """The name of a kind of storage."""

    __slots__ = ('name',)

    def __init__(self, name: str):
        self.name = name


class _Storage(_Inert):
    """The memory of tensors: `count` numbers of one type."""

    __slots__ = ('count', 'dtype', 'key')

    def __init__(self, pid: Any):
        kind, dtype, self.key, _, self.count, *view = pid
        whole = kind == 'storage' and type(dtype) is _DType and view in ([], [None])
        if not whole or type(self.count) is not int or self.count < 0:
            raise pickle.UnpicklingError('it has a storage that is not known')
        self.dtype = np.dtype(_DTYPES[dtype.name])


class _Tensor(_Inert):
    """Where in a storage the numbers of a tensor lie."""

    __slots__ = ('offset', 'size', 'storage', 'stride')

    def __init__(self, storage: Any, offset: int, size: tuple, stride: tuple, *_: Any):
        numbers = (offset, *size, *stride)
        if type(storage) is not _Storage or not all(type(n) is int and n >= 0 for n in numbers):
            raise pickle.UnpicklingError('it has a tensor that is not known')
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and (last >= storage.count or math.prod(size) > storage.count):
            raise pickle.UnpicklingError('a tensor reaches beyond its memory')
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self, values: np.ndarray) -> np.ndarray:
        """Returns the tensor in the values of its storage."""
        strides = [step * values.itemsize for step in self.stride]
        within = values[self.offset :] if 0 not in self.size else values[:0]
        return np.lib.stride_tricks.as_strided(within, self.size, strides, writeable=False)


class _Dict(dict):
    """An ordered dictionary, without the attributes that PyTorch gives it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Call(_Inert):
    """Stands for a function that a pickle names."""

    __slots__ = ('_function',)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ('collections', 'OrderedDict'): _Dict,
    ('torch._utils', '_rebuild_tensor_v2'): _Tensor,
    ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
}


class _Unpickler(pickle.Unpickler):
    """Knows tensors, their storages and ordered dictionaries; nothing else."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _Call(_KNOWN[module, name])
        if module == 'torch' and name in _DTYPES:
            return _DType(name)
        raise pickle.UnpicklingError(f'it holds more than tensors: {module}.{name}')

    def persistent_load(self, pid: Any) -> _Storage:
        storage = _Storage(pid)
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.count) != (storage.dtype, storage.count):
            raise pickle.UnpicklingError('it has two storages of one name')
        return known


def _load_zip(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if name.endswith('/data.pkl')]
        if len(inside) != 1:
            raise ValueError('it is a zip file without the one data.pkl of PyTorch')
        folder = inside[0].removesuffix('data.pkl')
        with archive.open(inside[0]) as file:
            unpickler = _Unpickler(file)
            content = unpickler.load()
        values = {}
        for key, storage in unpickler.storages.items():
            member = archive.getinfo(f'{folder}data/{key}')
            stored = member.compress_type == zipfile.ZIP_STORED  # Else a few bytes make many.
            if not stored or member.file_size != storage.count * storage.dtype.itemsize:
                raise ValueError('it has a storage of another size than it says')
            values[key] = np.frombuffer(archive.read(member), storage.dtype)
    return _filled(content, values)


def _load_stream(file: BinaryIO, file_bytes: int) -> Any:
    """Reads the format before PyTorch 1.6: pickles, then the storages one after another."""
    if _Unpickler(file).load() != _MAGIC:
        raise pickle.UnpicklingError('it is no file of PyTorch')
    for _ in ('protocol version', 'system'):
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    content = unpickler.load()
    values = {}
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        wanted = storage.count * storage.dtype.itemsize
        (count,) = struct.unpack('<q', file.read(8))
        if count != storage.count or wanted > file_bytes - file.tell():
            raise pickle.UnpicklingError('it ends too early')
        values[key] = np.frombuffer(file.read(wanted), storage.dtype)
    return _filled(content, values)


def _filled(content: Any, values: dict[str, np.ndarray]) -> Any:
    """Returns what was described with arrays in the place of tensors."""
    if type(content) is _Tensor:
        return content.array(values[content.storage.key])
    if isinstance(content, dict):
        return {name: _filled(value, values) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_filled(value, values) for value in content]
    return content
