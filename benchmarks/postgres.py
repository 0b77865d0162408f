"""A PostgreSQL server of one's own, for as long as a block runs."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator

_USER = 'postgres'  # The server refuses to run as root.


def found() -> pathlib.Path | None:
    """Returns the folder of the server's programs; None where it is not installed."""
    folders = sorted(pathlib.Path('/usr/lib/postgresql').glob('*/bin'), reverse=True)
    on_path = shutil.which('pg_ctl')
    candidates = [*folders, *([pathlib.Path(on_path).parent] if on_path else [])]
    return next((f for f in candidates if (f / 'initdb').exists()), None)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Starts a server with an empty database on a free port of this machine; gives its URL."""
    programs = found()
    assert programs, 'PostgreSQL is not installed.'
    user = _USER if os.geteuid() == 0 else None
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    folder = pathlib.Path(tempfile.mkdtemp(prefix='postgres-'))
    if user:
        shutil.chown(folder, user)

    def do(*arguments: str) -> None:
        subprocess.run(
            [str(programs / arguments[0]), *arguments[1:]],
            user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    data = str(folder / 'data')
    options = f'-p {port} -h 127.0.0.1 -k {folder} -c fsync=off'
    try:
        do('initdb', '-D', data, '-U', 'leadline', '-A', 'trust', '-N')
        do('pg_ctl', '-D', data, '-l', str(folder / 'log'), '-o', options, '-w', 'start')
        try:
            yield f'postgresql://leadline@127.0.0.1:{port}/postgres'
        finally:
            do('pg_ctl', '-D', data, '-m', 'immediate', '-w', 'stop')
    finally:
        shutil.rmtree(folder, ignore_errors=True)
