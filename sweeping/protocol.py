"""What a sweep and its workers say to each other, as pairs of a name and its content.

A worker is sent

    ('job', Job)                                    train these runs
    ('drop', run)                                   save and end this run of the job
    ('stop', None)                                  save and end the job; there will be no other

and sends

    ('ready', (platform, number of devices))        after its imports
    ('net', facts)                                  parameters, FLOPs and what else was asked for
    ('step', (run, step))                           at most ten a second
    ('evaluation', (run, line of metrics.jsonl))
    ('done', results)                               `result.json` of each run; None: not begun
    ('failed', (kind, text))                        in place of done: one of KINDS, what happened
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

# The net is too large; something the user can mend; the disk is full; anything else.
KINDS = UNFIT, MISTAKE, DISK, ERROR = 'infeasible', 'mistake', 'disk', 'error'


@dataclasses.dataclass(frozen=True)
class Job:
    """Runs to train.

    Attributes:
      configs: JSON form of each config; they differ in `training.prepared.FREE` alone.
      workdirs: a run folder for each.
      limits: most `parameters`, `flops`, `latency_ms`, `memory_mb`; only those that are limited.
      measured: those of `latency_ms` and `memory_mb` to measure without a limit.
    """

    configs: Sequence[dict[str, Any]]
    workdirs: Sequence[str]
    limits: dict[str, float]
    measured: Sequence[str] = ()
