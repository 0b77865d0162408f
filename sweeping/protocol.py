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

# Of 'failed': the net is too large; another process trains in the folder; the disk is full; what is
# wrong is the sweep; anything else.
UNFIT, BUSY, DISK, SWEEP, ERROR = 'infeasible', 'busy', 'disk', 'sweep', 'error'


@dataclasses.dataclass(frozen=True)
class Job:
    """Runs to train.

    Attributes:
      configs: JSON form of each config; they differ in `training.prepared.FREE` alone.
      workdirs: a run folder for each.
      objectives: of the sweep.
      limits: most `parameters`, `flops`, `latency_ms`, `memory_mb`; only those that are limited.
    """

    configs: Sequence[dict[str, Any]]
    workdirs: Sequence[str]
    objectives: Sequence[str]
    limits: dict[str, float]
