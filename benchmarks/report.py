"""The file that a benchmark writes its figures to with `--json`, and where they come from.

Imports what costs time or memory only when it writes, so that processes whose start or memory is
measured have none of it.
"""

import datetime
import json
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import psutil
from absl import flags

_JSON = flags.DEFINE_string('json', None, 'File for the figures, with versions and hardware.')


def write(figures: Mapping[str, Any]) -> None:
    """Writes the figures with versions, hardware and time to the file of `--json`, if any.

    Called at the end: it opens the devices, which processes started before may hold.
    """
    if not _JSON.value:
        return
    from training import results
    from training.data_parallel import DataParallel

    device = DataParallel('shard_map').facts() | {
        'processor': processor(),
        'memory_bytes': psutil.virtual_memory().total,
    }
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    content = {**figures, **results.environment(device), 'time': now}
    pathlib.Path(_JSON.value).write_text(json.dumps(content, indent=1) + '\n')


def processor() -> str:
    """Returns the name of the CPU."""
    info = pathlib.Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()
