"""What a sweep and its workers say to each other, as pairs of a name and its content.

A worker is sent

    ('job', Job)                                    train these runs
    ('drop', run)                                   save and end this run of the job
    ('stop', None)                                  save and end the job; there will be no other

and sends

    ('ready', (platform, number of devices))        after its imports
    ('look', None)                                  data are read, which may take long
    ('net', facts)                                  parameters, FLOPs and what else was asked for
    ('step', (run, step))                           at most ten a second
    ('evaluation', (run, line of metrics.jsonl))
    ('done', results)                               `result.json` of each run; None: not begun
    ('failed', (kind, text))                        in place of done: why, and in words
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

# Of 'failed': the net is too large; the device has no memory left; another process trains in the
# folder; files cannot be read or written; the data set cannot be read or split; what is wrong is
# the sweep; something the user can mend; anything else, after which the process is not trusted.
UNFIT, MEMORY, BUSY, FILES = 'infeasible', 'memory', 'busy', 'files'
DATA, SWEEP, MISTAKE, ERROR = 'data', 'sweep', 'mistake', 'error'


@dataclasses.dataclass(frozen=True)
class Job:
    """Runs to train.

    Attributes:
      configs: JSON form of each config; they differ in `training.prepared.FREE` alone.
      workdirs: a run folder for each.
      objectives: of the sweep.
      limits: most `parameters`, `flops`, `latency_ms`, `memory_mb`; only those that are limited.
      predict_batch: of how many examples at once latency and memory are.
    """

    configs: Sequence[dict[str, Any]]
    workdirs: Sequence[str]
    objectives: Sequence[str]
    limits: dict[str, float]
    predict_batch: int
