"""Many hosts on one study: is every point tried exactly once, and how much faster is it?

Starts several `sweep.py` commands with one worker each, as that many hosts would, on a grid of
learning rates with a tiny net on the digits; kills with signal 9 a command and its worker, then a
worker alone, starts another command, and looks at the study.

  python benchmarks/workers.py --storage=postgresql --hosts=4 --points=200
  python benchmarks/workers.py --storage=sqlite --hosts=2 --points=200
"""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from absl import app, flags

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import postgres  # noqa: E402

_STORAGE = flags.DEFINE_enum('storage', 'sqlite', ['sqlite', 'postgresql'], 'Database.')
_HOSTS = flags.DEFINE_integer('hosts', 2, 'Commands that work on the study.')
_POINTS = flags.DEFINE_integer('points', 200, 'Points of the grid.')
_KILL = flags.DEFINE_bool('kill', True, 'Kill two of them on the way, and add one.')
_FIELDS = {
    'base.epochs': 1, 'base.model.stage_sizes': '(1,)', 'base.model.width': 4, 'replicates': 1,
    'workers': 1,
}  # fmt: skip

_SWEEP = """
from configs import plain_small
from configs.sweeps import default
from configs.sweeps.factors import choice

def get_config():
    rates = [0.001 * 1.02**i for i in range({points})]
    return default.get_config(
        plain_small.get_config(), [choice('optimizer.learning_rate', *rates)], vary_splits=False
    )
"""


class Hosts:
    """The commands that work on one study.

    Args:
      folder: of the study and of the sweep file.
      points: of the grid.
      storage: URL; '' for SQLite.
    """

    def __init__(self, folder: pathlib.Path, points: int, storage: str):
        self.study, self._storage = folder / 'study', storage
        self._file = folder / 'rates.py'
        self._file.write_text(_SWEEP.format(points=points))
        self.processes: list[subprocess.Popen] = []

    def start(self, **environment: str) -> subprocess.Popen:
        """Starts one more."""
        fields = [f'--config.{name}={value}' for name, value in _FIELDS.items()]
        process = subprocess.Popen(
            [sys.executable, 'sweep.py', f'--config={self._file}', f'--workdir={self.study}',
             f'--storage={self._storage}', *fields],
            cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def table(self):
        """Returns the study as it is; None before it is there."""
        from errors import UserError
        from sweeping import study

        try:
            return study.reopen(self.study, self._storage).table()
        except UserError:
            return None

    def wait_for(self, done: int) -> None:
        """Waits until so many points are complete."""
        while (table := self.table()) is None or complete(table) < done:
            alive = [process for process in self.processes if process.poll() is None]
            assert alive, [process.communicate()[0] for process in self.processes]
            time.sleep(0.5)


def children(process: subprocess.Popen) -> list[int]:
    """Returns the process numbers of the workers of a command."""
    found = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def complete(table) -> int:
    """Returns how many points are complete."""
    return sum(point.outcome == 'complete' for point in table.points)


def complete_trials(study: pathlib.Path, storage: str) -> collections.Counter:
    """Returns how many COMPLETE trials each point has, asked of Optuna itself."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials = optuna.load_study(
        study_name=json.loads((study / 'sweep.json').read_text())['name'],
        storage=storage or f'sqlite:///{study / "study.db"}',
    ).get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    return collections.Counter(json.dumps(trial.params, sort_keys=True) for trial in done)


def work(folder: pathlib.Path, storage: str, workers: int, points: int, kill: bool, **env: str):
    """Lets so many commands do the study; returns points/s, COMPLETE trials, the table."""
    hosts = Hosts(folder, points, storage)
    for _ in range(workers):
        hosts.start(**env)
    hosts.wait_for(1)
    begun, before = time.perf_counter(), complete(hosts.table())
    if kill:
        hosts.wait_for(points // 4)
        for pid in [hosts.processes[0].pid, *children(hosts.processes[0])]:
            os.kill(pid, signal.SIGKILL)
        hosts.wait_for(points * 2 // 5)
        for pid in children(hosts.processes[1]):
            os.kill(pid, signal.SIGKILL)
        hosts.wait_for(points // 2)
        hosts.start(**env)
    hosts.wait_for(points)
    seconds = time.perf_counter() - begun
    for process in hosts.processes:
        process.wait(timeout=120)
    counts = complete_trials(hosts.study, storage)
    return (points - before) / seconds, counts, hosts.table()


def main(_: list[str]) -> None:
    """Works with many and with one, and prints what came of it."""
    speeds = {}
    for workers, kill in ((_HOSTS.value, _KILL.value), (_HOSTS.value, False), (1, False)):
        with tempfile.TemporaryDirectory() as name:
            if _STORAGE.value == 'postgresql':
                with postgres.server() as url:
                    done = work(pathlib.Path(name), url, workers, _POINTS.value, kill)
            else:
                done = work(pathlib.Path(name), '', workers, _POINTS.value, kill)
        speed, counts, table = done
        outcomes = collections.Counter(point.outcome for point in table.points)
        attempts = sum(point.session['attempts'] for point in table.points)
        speeds[workers, kill] = speed
        print(
            f'{_STORAGE.value}, {workers} workers{", two killed, one added" if kill else ""}: '
            f'{dict(outcomes)}; COMPLETE trials per point: '
            f'{dict(collections.Counter(counts.values()))} over {len(counts)} points; {attempts} '
            f'trials begun; {speed:.2f} points/s',
            flush=True,
        )
    ratio = speeds[_HOSTS.value, False] / speeds[1, False]
    print(f'{_HOSTS.value} workers against one: {ratio:.2f}')


if __name__ == '__main__':
    app.run(main)
