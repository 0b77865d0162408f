"""XLA's persistent compilation cache: on by default, in one folder per user, bounded in size."""

import os
import pathlib

import jax

_MAX_BYTES = 2 * 2**30


def enable() -> None:
    """Turns the cache on, in `$XDG_CACHE_HOME/leadline/xla` (`~/.cache/leadline/xla`).

    JAX's own settings win: JAX_COMPILATION_CACHE_DIR moves it (then its size is yours to bound,
    by JAX_COMPILATION_CACHE_MAX_SIZE), JAX_ENABLE_COMPILATION_CACHE=false switches it off.
    """
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
        folder = pathlib.Path(home) / 'leadline' / 'xla'
        jax.config.update('jax_compilation_cache_dir', str(folder))
        jax.config.update('jax_compilation_cache_max_size', _MAX_BYTES)
    # Anything slower than a tenth of a second is worth a file.
    if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
