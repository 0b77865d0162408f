"""A training step of ours beside one of PyTorch and of Keras 3: seconds, memory, share of peak.

  pip install -r requirements-bench.txt
  python benchmarks/train_step.py                      all rows: 15 minutes or more on 2 cores
  python benchmarks/train_step.py --only=ResNet-20     those whose names hold the word
  python benchmarks/train_step.py --peers=eager,JAX    beside those whose names hold a word; or none
  python benchmarks/train_step.py --json=FILE          every round, with versions and hardware

All train the same net (the parameters are counted) with the same batch of the same uint8 images,
which lie on the device; with the same normalisation inside the step, cross-entropy, and SGD with
Nesterov momentum and weight decay of kernels; without augmentation. Ours is the step of
`train.py`: it also gathers each batch from the data set on the device and counts what was right.
Peers are given their batches, and set up as their users would for speed (see benchmarks/peers/).

Each has a process of its own, which waits while another is timed. They are asked in turn, each
round in another order, for as many steps as take `--round_seconds`; a round ends when its results
are there. Times are medians over the rounds of seconds per step, with least and most. The first
step, with compiling, stands apart. Memory is the peak of the process (VmHWM, with imports, data and
compiling), on a GPU that of the device. FLOPs are three times those of the forward pass by
arithmetic (`models/summary.py`); beside them is their share of the peak, which is what the fastest
library here reaches on a product of large matrices. "peer / ours" above 1 says that ours is faster.

Rows with GPU in their name are left out on a CPU unless --only names them with that word.
"""

import math
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
from multiprocessing.connection import Connection
from typing import Any

import psutil
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import report
from benchmarks.peers import matmul
from benchmarks.peers.worker import Case, Kind, serve
from console import Console, size

_ONLY = flags.DEFINE_string('only', '', 'Part of the names of the rows to run.')
_PEERS = flags.DEFINE_list('peers', [], 'Parts of the names of the peers to run; empty: all.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'How often each is timed.', lower_bound=1)
_SECONDS = flags.DEFINE_float('round_seconds', 2.0, 'Length of a round.', lower_bound=0.0)
_BATCH = flags.DEFINE_integer('batch_size', 0, 'In place of those of the rows.', lower_bound=0)

CASES = [
    Case('plain 3x32 at 32x32', 'plain', 'plain_small', 32, 128),
    Case('ResNet-20 at 32x32', 'resnet20', 'nets:resnet20', 32, 128),
    Case('ResNet-18 at 64x64', 'resnet18', 'nets:resnet18', 64, 64),
    Case('EfficientNet-B0 at 64x64', 'efficientnet_b0', 'nets:efficientnet_b0', 64, 32),
    Case('GPU ResNet-18, small stem, at 32x32', 'resnet18_small', 'nets:resnet18', 32, 512,
         {'model.stem': 'small'}, dtype='bfloat16', gpu=True),
    Case('GPU ResNet-50 at 224x224', 'resnet50', 'nets:resnet50', 224, 128, classes=1000,
         dtype='bfloat16', gpu=True),
]  # fmt: skip
OURS = 'Leadline'
CONTENDERS = {
    OURS: Kind('leadline'),
    'PyTorch eager': Kind('pytorch'),
    'PyTorch compiled': Kind('pytorch', 'compile'),
    'Keras TensorFlow': Kind('keras3', environment={'KERAS_BACKEND': 'tensorflow'}),
    'Keras JAX': Kind('keras3', environment={'KERAS_BACKEND': 'jax'}),
}
_ENVIRONMENT = {
    # What is compiled is compiled here, not taken from a cache of a run before.
    'JAX_ENABLE_COMPILATION_CACHE': 'false',
    # On a GPU, processes share its memory.
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'TF_FORCE_GPU_ALLOW_GROWTH': 'true',
    'TF_CPP_MIN_LOG_LEVEL': '3',
}
_PROCESSES = multiprocessing.get_context('spawn')


class Worker:
    """The process of a contender, and what it has said so far.

    Attributes:
      answer: its first: `facts`, `absent` or `error`.
      rounds: figures of each.
    """

    def __init__(self, kind: Kind, case: Case, log: pathlib.Path):
        self._connection: Connection
        self._connection, theirs = _PROCESSES.Pipe()
        self._log = log
        arguments = theirs, kind, case, _SECONDS.value, log
        self._process = _PROCESSES.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.answer = self._receive()
        self.rounds: list[dict[str, Any]] = []

    def round(self) -> None:
        """Has it do a round, and notes how many cores did something else meanwhile."""
        busy = _busy_seconds()
        self._connection.send('round')
        figures = self._receive()
        if 'error' not in figures and not math.isfinite(figures['loss']):
            figures = {'error': f'its loss is {figures["loss"]}'}
        if 'error' in figures:
            self.answer = figures
            return
        busy = _busy_seconds() - busy
        figures['cores_elsewhere'] = (busy - figures['cpu_seconds']) / figures['seconds']
        self.rounds.append(figures)

    def end(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(10)
        self._process.kill()

    def _receive(self) -> dict[str, Any]:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join(10)
            return {'error': f'its process ended with status {self._process.exitcode}'}

    def log(self) -> str:
        """Returns what its libraries have printed."""
        return self._log.read_text(errors='replace')


def _busy_seconds() -> float:
    """Returns how long all cores together have worked since the machine was started."""
    times = psutil.cpu_times()
    return times.user + times.system


def measure(case: Case, kinds: dict[str, Kind], scratch: pathlib.Path) -> dict[str, Any]:
    """Times the contenders of a row in turn; returns for each its facts and rounds.

    Where there are none there is `absent` or `error` in their place.
    """
    workers: dict[str, Worker] = {}
    try:
        for name, kind in kinds.items():
            workers[name] = Worker(kind, case, scratch / f'{name}.log')
        check(case, workers)
        names = [name for name, worker in workers.items() if 'facts' in worker.answer]
        for i in range(_ROUNDS.value):
            for j in range(len(names)):
                worker = workers[names[(i + j) % len(names)]]
                if 'facts' in worker.answer:
                    worker.round()
        check(case, workers)
    finally:
        for worker in workers.values():
            worker.end()
    return {
        name: worker.answer.get('facts', worker.answer) | {'rounds': worker.rounds}
        for name, worker in workers.items()
    }


def check(case: Case, workers: dict[str, Worker]) -> None:
    """Ends the benchmark where ours fails, or where they do not train the same net."""
    if 'facts' not in workers[OURS].answer:
        sys.exit(f'{workers[OURS].log()}\n{case.name}: {OURS} failed: {workers[OURS].answer}')
    ours = workers[OURS].answer['facts']
    for name, worker in workers.items():
        if 'facts' not in worker.answer:
            continue
        theirs = worker.answer['facts']
        if theirs['parameters'] != ours['parameters']:
            sys.exit(
                f'{case.name}: the net of {name} has {theirs["parameters"]:,} trainable '
                f'parameters, ours {ours["parameters"]:,}: they are not the same net.'
            )
        if theirs['platform'] != ours['platform']:
            where = f'it runs on the {theirs["platform"]}, ours on the {ours["platform"]}'
            worker.answer = {'error': where}


def judge(contenders: dict[str, dict[str, Any]], case: Case, peak: float) -> None:
    """Adds to each contender the medians over its rounds, and what follows from them."""
    ours = contenders[OURS]
    for figures in contenders.values():
        if 'parameters' not in figures:
            continue
        each = [r['seconds'] / r['steps'] for r in figures['rounds']]
        median = statistics.median(each)
        speed = 3 * ours['flops'] * case.batch / median
        memory = [r['device_peak_bytes'] or r['host_peak_bytes'] for r in figures['rounds']]
        figures |= {
            'step_seconds': median,
            'step_seconds_range': (min(each), max(each)),
            'images_per_second': case.batch / median,
            'flops_per_second': speed,
            'share_of_peak': speed / peak,
            'peak_bytes': max(memory),
            'ratio': median / ours.get('step_seconds', median),
        }


def milliseconds(seconds: float) -> str:
    """Returns a time in milliseconds, with a decimal where it is short."""
    return f'{1000 * seconds:,.0f}' if seconds >= 0.1 else f'{1000 * seconds:,.1f}'


def show(case: Case, contenders: dict[str, dict[str, Any]], console: Console) -> None:
    """Prints the table of a row."""
    ours = contenders[OURS]
    console.line(
        f'\n{case.name}, batch {case.batch}, {case.dtype}: {ours["parameters"]:,} parameters, '
        f'{3 * ours["flops"] * case.batch / 1e9:,.1f} GFLOP a step; {ours["device"]}'
    )
    rows = []
    for name, figures in contenders.items():
        if 'step_seconds' not in figures:
            continue
        least, most = (milliseconds(seconds) for seconds in figures['step_seconds_range'])
        rows.append([
            name,
            milliseconds(figures['step_seconds']),
            f'{least}..{most}',
            f'{figures["images_per_second"]:,.0f}',
            f'{figures["flops_per_second"] / 1e9:,.0f}',
            f'{100 * figures["share_of_peak"]:.0f} %',
            size(figures['peak_bytes']),
            f'{figures["seconds"]["first_step"]:.1f} s',
            '' if name == OURS else f'{figures["ratio"]:.2f}',
        ])  # fmt: skip
    console.table(
        ['', 'ms', 'range', 'images/s', 'GFLOP/s', 'peak', 'memory', 'first step',
         'peer / ours'],
        rows,
    )  # fmt: skip
    for name, figures in contenders.items():
        if 'error' in figures:
            console.line(f'{name}: {figures["error"]}')
    elsewhere = [r['cores_elsewhere'] for f in contenders.values() for r in f['rounds']]
    console.line(
        f'Meanwhile {statistics.median(elsewhere):.2f} cores (at most {max(elsewhere):.2f}) were '
        'busy with something else.'
    )


def main(_) -> None:
    """Runs the rows and prints their tables."""
    console = Console()
    os.environ.update(_ENVIRONMENT)
    kinds = {
        name: kind for name, kind in CONTENDERS.items()
        if name == OURS or not _PEERS.value or any(part in name for part in _PEERS.value)
    }  # fmt: skip
    console.line(
        f'A training step on {report.processor()}, {os.cpu_count()} cores: {_ROUNDS.value} rounds '
        f'of {_SECONDS.value:g} s, in turn'
    )
    cases = [case for case in CASES if _ONLY.value in case.name]
    if not cases:
        sys.exit(f'No row holds {_ONLY.value!r}; there are {", ".join(c.name for c in CASES)}.')
    peaks = {cases[0].dtype: matrix_product(cases[0].dtype, console)}
    on_cpu = peaks[cases[0].dtype]['platform'] == 'cpu'
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = f'{folder}/inductor'
        for case in cases:
            if case.gpu and on_cpu and 'GPU' not in _ONLY.value:
                console.line(f'\n{case.name} is left out on a CPU.')
                continue
            case = case._replace(batch=_BATCH.value or case.batch)
            if case.dtype not in peaks:
                peaks[case.dtype] = matrix_product(case.dtype, console)
            contenders = measure(case, kinds, pathlib.Path(folder))
            for name in [name for name, figures in contenders.items() if 'absent' in figures]:
                del kinds[name]
                console.line(
                    f'{name} is left out: there is no {contenders.pop(name)["absent"]} '
                    '(pip install -r requirements-bench.txt)'
                )
            judge(contenders, case, max(peaks[case.dtype]['flops_per_second'].values()))
            show(case, contenders, console)
            rows[case.name] = {'case': case._asdict(), 'contenders': contenders}
    summarize(rows, console)
    rounds = {'rounds': _ROUNDS.value, 'round_seconds': _SECONDS.value}
    report.write({'rows': rows, 'matrix_product': peaks, **rounds})


def matrix_product(dtype: str, console: Console) -> dict[str, Any]:
    """Measures in a process of its own what a matrix product reaches, and prints it."""
    with _PROCESSES.Pool(1) as pool:
        peak = pool.apply(matmul.measure, (dtype,))
    speeds = ', '.join(f'{n} {f / 1e9:,.0f}' for n, f in peak['flops_per_second'].items())
    side = peak['side']
    console.line(f'Matrix product of {side}x{side}, {dtype}, in GFLOP/s: {speeds}')
    return peak


def fastest_peer(contenders: dict[str, dict[str, Any]]) -> str | None:
    """Returns the name of the peer with the least seconds per step; None where there is none."""
    peers = [name for name in contenders if name != OURS and 'step_seconds' in contenders[name]]
    return min(peers, key=lambda name: contenders[name]['step_seconds'], default=None)


def summarize(rows: dict[str, Any], console: Console) -> None:
    """Prints ours beside the fastest peer of every row."""
    table = []
    for name, row in rows.items():
        contenders = row['contenders']
        if best := fastest_peer(contenders):
            seconds = [contenders[who]['step_seconds'] for who in (OURS, best)]
            ratio = f'{contenders[best]["ratio"]:.2f}'
            table.append([name, *map(milliseconds, seconds), best, ratio])
    if table:
        console.line('')
        console.table(['', 'ours, ms', 'fastest peer, ms', 'which', 'peer / ours'], table)


if __name__ == '__main__':
    app.run(main)
