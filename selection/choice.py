"""`choice.json`: what the method has found so far; the contract between it and its readers."""

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from errors import UserError, did_you_mean
from training.run_folder import RunFolder

FILE = 'choice.json'
RECOMMENDED_CONFIG = 'recommended_config.py'  # Beside it, for train.py.
_T = TypeVar('_T')


class Measure(NamedTuple):
    """By what nets are compared.

    Attributes:
      heading: its name in words.
      is_share: whether it is a share of 1, shown in per cent and compared in points.
      less_is_better: whether it is a loss.
    """

    heading: str
    is_share: bool
    less_is_better: bool


MEASURES = {
    'accuracy': Measure('accuracy', True, False),
    'balanced_accuracy': Measure('balanced accuracy', True, False),
    'log_loss': Measure('log loss', False, True),
    'cost': Measure('cost', False, True),
    'loss': Measure('loss', False, True),  # Of data sets whose labels are numbers.
}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A net with its recipe, and what is known of it.

    Attributes:
      name: unique and short, such as `plain-4@32`.
      label: what it is, such as '4 convolutions, 16 filters at first, 32 pixels'.
      role: `constant`, `linear`, `ladder`, `baseline`, `question` or `joint`.
      fields: config fields by dotted name.
      depth: layers of the kind that the ladder adds (`Choice.layer`).
      image_size: side in pixels; None where the inputs are no images.
      parameters, flops: of the net; FLOPs for one example. None where it was never built.
      latency_ms: of one example, None where not measured.
      runs: how many runs over folds `mean` stands on.
      mean, low, high: the measure in its own sign, so that less is better for losses, and its
        interval; None where not known.
      status: `kept`, `left` (clearly inferior), `infeasible`, `failed` or `stopped early`.
      reason: of any status but `kept`, in words.
    """

    name: str
    label: str
    role: str
    fields: dict[str, Any]
    depth: int
    image_size: int | None = None
    parameters: int | None = None
    flops: int | None = None
    latency_ms: float | None = None
    runs: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    status: str = 'kept'
    reason: str = ''


@dataclasses.dataclass(frozen=True)
class Answered:
    """A question with its verdict.

    Attributes:
      stage: that asked it, such as `repeats` or `questions`.
      question: such as 'Does a fifth convolution help?'.
      name, reference: the two candidates.
      difference: by how much `name` is better than `reference`; below 0 where it is worse,
        whatever the sign of the measure.
      half_width: of the interval of the difference.
      runs: of each of the two.
      answer: `better`, `no better`, `cannot tell` or `worse`.
      settle: a sentence on what would settle it; '' where it is settled.
      idea: key of `selection.report.glossary.IDEAS`, or ''.
    """

    stage: str
    question: str
    name: str
    reference: str
    difference: float
    half_width: float
    runs: int
    answer: str
    settle: str = ''
    idea: str = ''


@dataclasses.dataclass(frozen=True)
class Confirmed:
    """A finalist or baseline, trained on all data but the test split and judged on that.

    Attributes:
      name: of the candidate.
      runs: their folders, from the workdir.
      test: the measure of each run on the test split.
      mean, low, high: over the runs, with the interval.
      prediction_low, prediction_high: between which one new run is to be expected.
    """

    name: str
    runs: tuple[str, ...]
    test: tuple[float, ...] = ()
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    prediction_low: float | None = None
    prediction_high: float | None = None


@dataclasses.dataclass(frozen=True)
class Opening:
    """An entry of the ledger of the test split.

    Attributes:
      when: date and time.
      what: was judged.
      forced: whether it was opened before.
      runs: folder of the first run of each net that was judged.
    """

    when: str
    what: str
    forced: bool = False
    runs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a stage took."""

    stage: str
    runs: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Budget:
    """What may be spent; None where there is no limit."""

    seconds: float | None = None
    runs: int | None = None


@dataclasses.dataclass(frozen=True)
class Goal:
    """What the user wants to reach.

    Attributes:
      asked: such as `balanced_accuracy>=0.95`.
      answer: `met`, `not met` or `cannot tell`.
      take: a sentence on what it would take; '' where it is met.
    """

    asked: str
    answer: str = 'cannot tell'
    take: str = ''


@dataclasses.dataclass(frozen=True)
class Trained:
    """The recommended net trained on so many images: a point of the learning curve."""

    images: int
    mean: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Gain:
    """By how much more data would make the net better, with bounds; positive is better."""

    gain: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the method has found so far.

    Attributes:
      dataset: its full name.
      holds: what the examples are: `images` or `examples`.
      images: examples but those of the test split.
      test_images: examples of the test split.
      classes: names; empty where labels are numbers.
      folds: K.
      delta: the smallest difference that matters, in the unit of the measure.
      measure: key of `MEASURES`.
      device, versions, git_revision: as in `result.json`.
      budget: what may be spent.
      predict_batch: of how many examples at once latencies are.
      layer: the kind of layer that the ladder adds, singular.
      stage: the last one begun.
      finished: whether all stages ran.
      audit: sentences.
      goal: None where none was asked for.
      candidates: in the order in which they were proposed.
      recommended: name of a candidate, '' where none is feasible.
      confidence: a sentence.
      verdicts: in the order in which they were given.
      resolution: the smallest difference these data can show; None before the first repeat.
      confirmed, openings: empty before the test split is opened.
      learning_curve: of the recommended net, by images.
      twice_the_data: None where not known.
      spent: by stage.
      final_run: folder of the trained net, from the workdir; '' before.
      reproduce: commands.
    """

    dataset: str
    images: int
    test_images: int
    classes: tuple[str, ...]
    folds: int
    delta: float
    measure: str
    device: dict[str, Any]
    versions: dict[str, Any]
    holds: str = 'images'
    git_revision: str | None = None
    budget: Budget = Budget()
    predict_batch: int = 1
    layer: str = 'convolution layer'
    stage: str = 'audit'
    finished: bool = False
    audit: tuple[str, ...] = ()
    goal: Goal | None = None
    candidates: tuple[Candidate, ...] = ()
    recommended: str = ''
    confidence: str = ''
    verdicts: tuple[Answered, ...] = ()
    resolution: float | None = None
    confirmed: tuple[Confirmed, ...] = ()
    openings: tuple[Opening, ...] = ()
    learning_curve: tuple[Trained, ...] = ()
    twice_the_data: Gain | None = None
    spent: tuple[Spent, ...] = ()
    final_run: str = ''
    reproduce: tuple[str, ...] = ()

    def candidate(self, name: str) -> Candidate | None:
        """Returns a candidate by its name, None where there is none."""
        return next((each for each in self.candidates if each.name == name), None)


def write(choice: Choice, folder: str | os.PathLike) -> None:
    """Writes `choice.json` into the workdir, in place of an earlier one at once."""
    RunFolder(folder).write_json(FILE, dataclasses.asdict(choice))


def read(folder: str | os.PathLike) -> Choice:
    """Reads `choice.json` of a workdir.

    Raises:
      UserError: there is none, it is damaged, or it is of another version of Leadline.
    """
    content = RunFolder(folder).read_json(FILE)
    path = RunFolder(folder).path / FILE
    if content is None:
        raise UserError(f'There is no {path}: choose.py --data=... --workdir={folder} writes it.')
    try:
        choice = _built(Choice, content)
        if choice.measure not in MEASURES:
            raise ValueError(f'measure {choice.measure!r}')
    except (TypeError, ValueError) as error:
        raise UserError(
            f'{path} is not as this version of Leadline writes it ({error}): run choose.py with '
            'another --workdir.'
        ) from error
    return choice


def _built(kind: type[_T], content: Any) -> _T:
    """Returns a dataclass from the JSON of its fields, whose types it follows.

    Raises:
      ValueError: a key is unknown or missing, or the content is no object.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f'{kind.__name__} is {content!r}')
    types_by_name = typing.get_type_hints(kind)
    for key in content:
        if key not in types_by_name:
            near = did_you_mean(key, types_by_name)
            raise ValueError(f'unknown key {key!r} of {kind.__name__}.{near}')
    return kind(**{key: _value(types_by_name[key], content[key]) for key in content})


def _value(kind: Any, content: Any) -> Any:
    if isinstance(kind, types.UnionType):  # All of ours are of one type and None.
        return None if content is None else _value(typing.get_args(kind)[0], content)
    if typing.get_origin(kind) is tuple:
        return tuple(_value(typing.get_args(kind)[0], each) for each in content)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _built(kind, content)
    return content
