"""Commands as forks of one process that has imported what they need, which takes them seconds.

`python forks.py PATH train.py ...` is to whoever starts it what `python train.py ...` is: it hands
its streams to the server that listens at PATH, passes signals on, and ends as the command does.
"""

import contextlib
import json
import os
import signal
import socket
import sys

# What commands import where they need it.
_IMPORTED = (
    'auditing.findings', 'evaluation.evaluate', 'matplotlib.backends.backend_agg', 'reporting.page',
    'scipy.sparse.csgraph', 'sklearn.ensemble', 'sklearn.metrics', 'sklearn.model_selection',
    'sweeping.reading.page', 'sweeping.rerun', 'sweeping.run', 'training.describe', 'training.many',
)  # fmt: skip


def program(folder):
    """Starts a server whose socket lies in a folder, and returns what runs commands by it.

    The server ends with this process.
    """
    import subprocess

    path = os.path.join(folder, 'socket')
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()  # Commands may be given while the server still imports.
        without = os.path.join(root, 'tests', 'without_tensorflow')
        subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno())],
            cwd=root,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join([without, root])},
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # JAX warns of forks, which come before it has any threads.
        )
    return [sys.executable, '-I', '-S', __file__, path]


def _serve(listener):
    import gc
    import importlib
    import select

    sys.path[0] = os.getcwd()  # As of a command of the repository.
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # Or each fork looks through all of it when it ends.
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _attend(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _attend(connection):
    """Runs the command of a connection in another fork, and passes signals and status on."""
    import multiprocessing
    import threading

    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    words = connection.makefile('rb')
    request = json.loads(words.readline())
    # Such a fork ends without taking all modules apart, as a new process would.
    process = multiprocessing.get_context('fork').Process(target=_run, args=(streams, request))
    process.start()
    for stream in streams:
        os.close(stream)

    def pass_on():
        while number := words.read(1):
            os.kill(process.pid, number[0])
        process.kill()  # Who gave the command was killed.

    threading.Thread(target=pass_on, daemon=True).start()
    process.join()
    with contextlib.suppress(OSError):
        connection.sendall(b'%d\n' % process.exitcode)
    os._exit(0)


def _run(streams, request):
    import runpy

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Those of the server know what its own files can do.
    sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, (0, 1, 2), 'rww', (-1, -1, 1))
    os.environ.clear()
    os.environ.update(request['environment'])
    arguments = request['arguments']
    if arguments[0] == '-c':
        sys.argv = ['-c', *arguments[2:]]
        exec(arguments[1], {'__name__': '__main__'})
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name='__main__')


def _ask(path, arguments):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b'.'], [0, 1, 2])
        request = {'arguments': arguments, 'environment': dict(os.environ)}
        connection.sendall(json.dumps(request).encode() + b'\n')
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
        status = int(connection.makefile().readline())
    if status < 0:
        with contextlib.suppress(OSError):  # Nobody can ignore SIGKILL.
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == '__main__':
    if len(sys.argv) == 2:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        _ask(sys.argv[1], sys.argv[2:])
