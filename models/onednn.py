"""oneDNN's convolutions as operations of XLA on CPU; the library that PyTorch convolves with.

oneDNN (Intel's Deep Neural Network Library, C API of version 3) is called by ctypes from a handler
of XLA's foreign function interface (`xla/ffi/api/c_api.h`), which gets the addresses of XLA's own
buffers: nothing is copied, and a compiled program holds a name and a description, no address, so
that the compilation cache serves. The structures below are those of both C headers.

oneDNN runs each convolution on one core; we cut the batch into slices and run them on all. How it
is cut depends on the shapes alone, so the numbers do not depend on the number of cores.
"""

import atexit
import collections
import contextlib
import ctypes
import functools
import importlib.metadata
import json
import math
import os
import queue
import sys
import threading
from collections.abc import Callable
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any, NamedTuple

import jax
import numpy as np

TARGET = 'leadline_convolution'
_PACKAGE, _LIBRARY = 'onednn-cpu-gomp', 'libdnnl.so.3'
_MOST_SLICES = 16
_SLICE_FLOPS = 5_000_000  # So many for each slice, and as often as there are slices.
_MOST_SUMMED = 2**24  # Numbers of the gradients of all slices together.
# So much a slice has to compute for each number of the kernel, which it reads or whose gradient it
# gives, to be added to those of the other slices.
_FLOPS_PER_NUMBER = 400


@functools.cache
def version() -> str:
    """Returns the version of oneDNN, or '' where it is not installed or cannot be loaded.

    The first call loads the library and gives it to XLA.
    """
    library = _library()
    if library is None:
        return ''
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, [c_void_p, c_char_p, c_void_p]
    try:
        jax.ffi.register_ffi_target(TARGET, capsule(_handle, None, None), platform='cpu')
    except RuntimeError:  # Of another version of the interface.
        return ''
    # Registered after JAX's own, so called before it: XLA waits for what runs when it ends, and
    # Python answers no more calls by then.
    atexit.register(_wait)
    sys.unraisablehook = functools.partial(_end_where_a_call_was_broken, sys.unraisablehook)
    return '{}.{}.{}'.format(*library.dnnl_version().contents)


def _wait() -> None:
    for array in jax.live_arrays():
        with contextlib.suppress(Exception):
            array.block_until_ready()


def _end_where_a_call_was_broken(before: Callable[[Any], Any], unraisable: Any) -> None:
    """Ends the process where a signal broke into `_handle` before it could answer XLA."""
    before(unraisable)
    if unraisable.object is _answer:
        os._exit(130)


@functools.cache
def _library() -> Any:
    try:
        files = importlib.metadata.files(_PACKAGE) or []
        path = next(file.locate() for file in files if file.name == _LIBRARY)
        # PyDLL holds Python's lock, which only `dnnl_primitive_execute` is worth letting go of.
        library: Any = ctypes.PyDLL(str(path))
        library.execute = ctypes.CDLL(str(path)).dnnl_primitive_execute
        library.dnnl_version.restype = POINTER(c_int * 3)
    except (importlib.metadata.PackageNotFoundError, StopIteration, OSError, AttributeError):
        return None
    library.dnnl_primitive_desc_query_md.restype = c_void_p
    library.dnnl_memory_desc_get_size.restype = c_size_t
    return library


class Shape(NamedTuple):
    """A convolution of images [N, H, W, C] by a kernel [H, W, C / groups, O]."""

    images: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    result: tuple[int, int, int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int


# The numbers of dnnl_types.h.
_FLOAT32, _ANY_LAYOUT, _CPU, _TRAINING, _DIRECT, _BY_US = 3, 1, 1, 64, 1, 1
_SOURCE, _DESTINATION, _WEIGHTS, _SCRATCHPAD = 1, 17, 33, 80
_GRADIENT = 128  # What an argument's number has more where it is that argument's gradient.
_QUERY_WEIGHTS, _QUERY_WEIGHTS_GRADIENT, _QUERY_SCRATCHPAD = 131, 132, 136
_INTERNAL, _MAJOR = 13, 0  # XLA's code of an error, and the version of its interface.
# What the images, the result and the kernel are to each kind of operation.
_ARGUMENTS = {
    'convolution': (_SOURCE, _DESTINATION, _WEIGHTS),
    'images_gradient': (_SOURCE + _GRADIENT, _DESTINATION + _GRADIENT, _WEIGHTS),
    'kernel_gradient': (_SOURCE, _DESTINATION + _GRADIENT, _WEIGHTS + _GRADIENT),
}
# Where the images, the kernel and the result stand among two inputs and the output.
_ORDERS = {
    'convolution': (0, 1, 2),
    'images_gradient': (2, 1, 0),
    'kernel_gradient': (0, 2, 1),
}


class _Argument(Structure):
    _fields_ = (('what', c_int), ('memory', c_void_p))


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f'oneDNN ended with status {status} (dnnl_status_t)')


def _make(function: str, *arguments: Any) -> c_void_p:
    """Calls a function whose first argument is where it puts a handle, and returns the handle."""
    handle = c_void_p()
    _check(getattr(_library(), function)(ctypes.byref(handle), *arguments))
    return handle


def _dims(*sizes: int) -> Any:
    return (c_int64 * 12)(*sizes)


def _strided(shape: tuple[int, ...], strides: tuple[int, ...]) -> c_void_p:
    """Describes an array in memory."""
    return _make('dnnl_memory_desc_create_with_strides', len(shape), _dims(*shape), _FLOAT32,
                 _dims(*strides))  # fmt: skip


@functools.cache
def _engine() -> c_void_p:
    return _make('dnnl_engine_create', _CPU, c_size_t(0))


@functools.cache
def _attributes() -> c_void_p:
    """Asks for scratch memory as an argument: oneDNN's own belongs to the thread that made it."""
    attributes = _make('dnnl_primitive_attr_create')
    _check(_library().dnnl_primitive_attr_set_scratchpad_mode(attributes, _BY_US))
    return attributes


class _Thread:
    """What each thread calls oneDNN with: a stream, memory objects and scratch memory."""

    def __init__(self) -> None:
        self.stream = _make('dnnl_stream_create', _engine(), 0)
        self.arguments: dict[int | None, Any] = {}
        self.scratch = np.empty(0, np.uint8)

    def execute(
        self,
        primitive: c_void_p,
        what: tuple[int, ...],
        descriptions: tuple[c_void_p, ...],
        addresses: tuple[int, ...],
    ) -> None:
        """Computes; `what` says which argument of the primitive is described and lies where."""
        given = self.arguments.get(primitive.value)
        if given is None:
            made = [_make('dnnl_memory_create', d, _engine(), None) for d in descriptions]
            given = (_Argument * len(what))(*map(_Argument, what, made))
            self.arguments[primitive.value] = given
        library = _library()
        for argument, address in zip(given, addresses, strict=True):
            library.dnnl_memory_set_data_handle(c_void_p(argument.memory), c_void_p(address))
        _check(library.execute(primitive, self.stream, len(given), given))

    def scratch_address(self, size: int) -> int:
        """Returns the address of so many bytes, which may be overwritten."""
        if self.scratch.size < size:
            self.scratch = np.empty(size, np.uint8)
        return self.scratch.ctypes.data


class _Convolution:
    """A convolution of one shape, or its gradient by the images or by the kernel.

    oneDNN chooses a layout of its own for the kernel, so each call lays the kernel anew.

    Args:
      kind: of `_ARGUMENTS`.
      fields: of `Shape`.
    """

    def __init__(self, kind: str, *fields: Any):
        self.shape, self.by_kernel = Shape(*fields), kind == 'kernel_gradient'
        self.order = _ORDERS[kind]
        self.slices = self._count_slices()
        n = self.shape.images[0] // self.slices
        source, target, self.plain, window = self._describe(n)
        sizes, _ = self._kernel_axes()
        free = _make('dnnl_memory_desc_create_with_tag', len(sizes), _dims(*sizes), _FLOAT32,
                     _ANY_LAYOUT)  # fmt: skip
        forward = _make('dnnl_convolution_forward_primitive_desc_create', _engine(), _TRAINING,
                        _DIRECT, source, free, None, target, *window, _attributes())  # fmt: skip
        chosen, query = forward, _QUERY_WEIGHTS
        if kind == 'images_gradient':
            chosen = _make('dnnl_convolution_backward_data_primitive_desc_create', _engine(),
                           _DIRECT, source, free, target, *window, forward,
                           _attributes())  # fmt: skip
        elif self.by_kernel:
            query = _QUERY_WEIGHTS_GRADIENT
            chosen = _make('dnnl_convolution_backward_weights_primitive_desc_create', _engine(),
                           _DIRECT, source, free, None, target, *window, forward,
                           _attributes())  # fmt: skip
        library = _library()
        self.packed = c_void_p(library.dnnl_primitive_desc_query_md(chosen, query, 0))
        scratchpad = library.dnnl_primitive_desc_query_md(chosen, _QUERY_SCRATCHPAD, 0)
        self.described = source, target, self.packed, c_void_p(scratchpad)
        self.what = (*_ARGUMENTS[kind], _SCRATCHPAD)
        self.packed_size, self.scratch_size = (
            library.dnnl_memory_desc_get_size(d) for d in self.described[2:]
        )
        self.primitive = _make('dnnl_primitive_create', chosen)
        ends = (self.packed, self.plain) if self.by_kernel else (self.plain, self.packed)
        self.layout = _make(
            'dnnl_primitive_create',
            _make('dnnl_reorder_primitive_desc_create', ends[0], _engine(), ends[1], _engine(),
                  _attributes()),
        )  # fmt: skip

    def _count_slices(self) -> int:
        shape = self.shape
        flops = 2 * math.prod(shape.result) * math.prod(shape.kernel[:3])
        numbers = math.prod(shape.kernel)
        most = min(_MOST_SLICES, math.isqrt(flops // _SLICE_FLOPS))
        most = min(most, max(2, flops // (_FLOPS_PER_NUMBER * numbers)))
        if self.by_kernel:
            most = min(most, _MOST_SUMMED // numbers)
        return max((s for s in range(1, most + 1) if shape.images[0] % s == 0), default=1)

    def _kernel_axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns sizes and strides of the kernel's axes as oneDNN orders them: (G), O, I, H, W."""
        (height, width, inputs, outputs), groups = self.shape.kernel, self.shape.groups
        sizes = (groups, outputs // groups, inputs, height, width)
        strides = (outputs // groups, 1, outputs, width * inputs * outputs, inputs * outputs)
        return (sizes, strides) if groups > 1 else (sizes[1:], strides[1:])

    def _describe(self, n: int) -> tuple[c_void_p, c_void_p, c_void_p, tuple[Any, ...]]:
        """Describes n images, their result, the kernel as XLA has it, and the window."""
        shape = self.shape
        source, target = (
            _strided((n, c, h, w), (h * w * c, 1, w * c, c))
            for _, h, w, c in (shape.images, shape.result)
        )
        (top, bottom), (left, right) = shape.padding
        dilation = [d - 1 for d in shape.dilation]
        window = (shape.strides, dilation, (top, left), (bottom, right))
        kernel = _strided(*self._kernel_axes())
        return source, target, kernel, tuple(_dims(*pair) for pair in window)

    def __call__(self, *addresses: int) -> None:
        """Computes, from and to these addresses of float32 arrays: two inputs and the output."""
        images, kernel, result = (addresses[i] for i in self.order)
        parts = np.empty((self.slices if self.by_kernel else 1, self.packed_size), np.uint8)
        first, count = parts.ctypes.data, len(parts)

        def prepare() -> None:
            if not self.by_kernel:
                self._lay(kernel, parts[0])

        def run(i: int) -> None:
            thread = _thread()
            addresses = (
                images + i * 4 * math.prod(self.shape.images) // self.slices,
                result + i * 4 * math.prod(self.shape.result) // self.slices,
                first + i % count * self.packed_size,
                thread.scratch_address(self.scratch_size),
            )
            thread.execute(self.primitive, self.what, self.described, addresses)

        _on_all_cores(prepare, run, self.slices)
        if self.by_kernel:
            numbers = parts.view(np.float32)
            for part in numbers[1:]:
                numbers[0] += part
            self._lay(kernel, parts[0])

    def _lay(self, kernel: int, packed: np.ndarray) -> None:
        what = (_DESTINATION, _SOURCE) if self.by_kernel else (_SOURCE, _DESTINATION)
        addresses = (kernel, packed.ctypes.data)
        _thread().execute(self.layout, what, (self.plain, self.packed), addresses)


_threads: dict[int, _Thread] = {}


def _thread() -> _Thread:
    # Not by threading.local, which lasts for one call only in threads that are XLA's.
    mine = _threads.get(threading.get_ident())
    if mine is None:
        mine = _threads[threading.get_ident()] = _Thread()
    return mine


@functools.cache
def _helpers() -> queue.SimpleQueue[Callable[[], None]]:
    """Returns what threads of ours take work from; quicker than a pool of `concurrent.futures`."""
    work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def help_with() -> None:
        _keep_to_one_core()
        while True:
            work.get()()

    for _ in range(_count_cores()):
        threading.Thread(target=help_with, name='oneDNN', daemon=True).start()
    return work


def _keep_to_one_core() -> None:
    # We cut the work ourselves. oneDNN asks when it makes a primitive and when it executes one.
    _openmp().omp_set_num_threads(1)


@functools.cache
def _openmp() -> Any:
    return ctypes.PyDLL('libgomp.so.1')


def _count_cores() -> int:
    return len(os.sched_getaffinity(0))  # Linux, as the library.


def _on_all_cores(prepare: Callable[[], None], run: Callable[[int], None], count: int) -> None:
    """Calls `prepare`, then `run` with 0 to count - 1, each once, in this thread and helpers.

    The helpers are woken first: until a thread runs takes longer than to prepare.
    """
    left = iter(range(count))  # Shared: who is free takes the next one.
    not_ready = threading.Lock()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def take() -> None:
        for i in left:
            run(i)

    def help_out() -> None:
        error = None
        try:
            with not_ready:
                pass
            take()
        except BaseException as raised:
            error = raised
        ended.put(error)

    helpers = min(_count_cores(), count) - 1
    try:
        with not_ready:
            for _ in range(helpers):
                _helpers().put(help_out)
            try:
                prepare()
            except BaseException:
                collections.deque(left, maxlen=0)  # Nothing is begun.
                raise
        take()
    finally:
        errors = [ended.get() for _ in range(helpers)]
    for error in filter(None, errors):
        raise error


@functools.cache
def _convolution(description: bytes) -> _Convolution:
    return _Convolution(*json.loads(description))


# XLA's foreign function interface: of each structure as much as a call needs.


class _Version(Structure):
    _fields_ = (('size', c_size_t), ('extension', c_void_p), ('major', c_int), ('minor', c_int))


class _Metadata(Structure):
    _fields_ = (('size', c_size_t), ('version', _Version), ('traits', c_uint32))


class _Extension(Structure):
    _fields_ = (
        ('size', c_size_t),
        ('type', c_int),
        ('next', c_void_p),
        ('metadata', POINTER(_Metadata)),
    )


class _Failure(Structure):
    _fields_ = (('size', c_size_t), ('extension', c_void_p), ('text', c_char_p), ('code', c_int))


class _Api(Structure):
    _fields_ = (
        ('size', c_size_t),
        ('extension', c_void_p),
        ('version', _Version),
        ('internal', c_void_p),
        ('fail', ctypes.CFUNCTYPE(c_void_p, POINTER(_Failure))),
    )


class _Buffer(Structure):
    _fields_ = (
        ('size', c_size_t),
        ('extension', c_void_p),
        ('type', c_int),
        ('address', c_void_p),
        ('rank', c_int64),
        ('sizes', POINTER(c_int64)),
    )


class _Buffers(Structure):
    _fields_ = (
        ('size', c_size_t),
        ('extension', c_void_p),
        ('count', c_int64),
        ('types', c_void_p),
        ('buffers', POINTER(POINTER(_Buffer))),
    )


class _Text(Structure):
    _fields_ = (('characters', c_void_p), ('length', c_size_t))


class _Attributes(Structure):
    _fields_ = (
        ('size', c_size_t),
        ('extension', c_void_p),
        ('count', c_int64),
        ('types', c_void_p),
        ('names', c_void_p),
        ('values', POINTER(POINTER(_Text))),
    )


class _Call(Structure):
    _fields_ = (
        ('size', c_size_t),
        ('extension', POINTER(_Extension)),
        ('api', POINTER(_Api)),
        ('context', c_void_p),
        ('stage', c_int),
        ('arguments', _Buffers),
        ('results', _Buffers),
        ('attributes', _Attributes),
    )


def _answer(pointer: Any) -> int | None:
    """Answers XLA: what it is compatible with when it is registered, later each convolution."""
    call = pointer.contents
    if call.extension:
        xla = call.api.contents.version
        answer = call.extension.contents.metadata.contents.version
        # Of one major version later ones only add to the ends of structures.
        answer.major, answer.minor = _MAJOR, xla.minor
        return None
    description = b''
    try:
        _keep_to_one_core()
        text = call.attributes.values[0].contents
        description = ctypes.string_at(text.characters, text.length)
        convolution = _convolution(description)
        first, second = (call.arguments.buffers[i].contents.address for i in range(2))
        convolution(first, second, call.results.buffers[0].contents.address)
    except Exception as error:
        message = f'{error}: {description.decode()}'.encode()
        failure = _Failure(ctypes.sizeof(_Failure), None, message, _INTERNAL)
        error_of_xla: int | None = call.api.contents.fail(ctypes.byref(failure))
        return error_of_xla
    return None


_handle = ctypes.CFUNCTYPE(c_void_p, POINTER(_Call))(_answer)
