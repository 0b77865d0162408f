"""What is known of a choice while it goes on, as `choice.json` has it."""

import pathlib
from collections.abc import Mapping
from typing import Any

from selection import choice, outlook
from selection.candidates import Net
from selection.choice import Candidate, Choice, Spent
from selection.clock import Amount
from selection.data import Data
from selection.record import TUNING
from selection.search import Search
from selection.verdict import Evidence
from training.run_folder import RunFolder


def describe(
    search: Search,
    data: Data,
    recommended: Net,
    measure: str,
    goal: str,
    budget: Amount,
    folder: pathlib.Path,
) -> Choice:
    """Returns all that the stages have found so far.

    Args:
      search: of the stages.
      data: of the choice.
      recommended: the net to take.
      measure: key of `choice.MEASURES`.
      goal: as the user wrote it; '' for none.
      budget: of the whole choice.
      folder: the workdir.
    """
    repeated = search.repeated()
    evidence = search.record.evidence([net.name for net in repeated]) if repeated else None
    gain = outlook.twice_the_data(
        search, recommended, 1.0 if choice.MEASURES[measure].is_share else 0.0
    )
    nets = {**search.nets, recommended.name: recommended}.values()
    return Choice(
        dataset=data.name,
        images=len(data.members),
        test_images=len(data.test),
        classes=tuple(data.source.class_names),
        folds=search.record.folds,
        delta=search.settings.delta,
        measure=measure,
        **_provenance(search, folder),
        holds='images' if data.source.holds == 'images' else 'examples',
        budget=choice.Budget(budget.seconds, budget.runs),
        layer=search.space.layer,
        stage=search.stage,
        candidates=(
            *_constant(search, data, measure),
            *(_candidate(search, net, evidence, measure) for net in nets),
        ),
        recommended=recommended.name,
        verdicts=tuple(search.answers),
        confidence=outlook.confidence(search, recommended),
        goal=outlook.goal(goal, evidence, recommended.name, gain),
        resolution=evidence.resolution() if evidence and len(repeated) > 1 else None,
        learning_curve=outlook.learning_curve(search, recommended, len(data.members)),
        twice_the_data=gain,
        reproduce=(f'python train.py --config={folder / choice.RECOMMENDED_CONFIG}',),
        spent=tuple(Spent(stage, *amount) for stage, amount in search.spent.items()),
    )


def _provenance(search: Search, folder: pathlib.Path) -> Mapping[str, Any]:
    """Returns device, versions and revision of a run; empty before the first one."""
    first = next((o.folder for o in search.record.outcomes.values() if o.folder), '')
    result = RunFolder(folder / first).read_json('result.json') if first else None
    if result is None:
        return {'device': {}, 'versions': {}}
    return {name: result[name] for name in ('device', 'versions', 'git_revision')}


def _constant(search: Search, data: Data, measure: str) -> list[Candidate]:
    score = search.settings.constant
    if score is None:
        return []
    label = ('always the largest class' if data.source.class_names else
             'always the last value' if data.source.span else 'always the mean')  # fmt: skip
    mean = -score if choice.MEASURES[measure].less_is_better else score
    return [Candidate('constant', label, 'constant', {}, 0, mean=mean)]


def _candidate(search: Search, net: Net, evidence: Evidence | None, measure: str) -> Candidate:
    name, record = net.name, search.record
    runs = [number for number in record.numbers(name) if number < TUNING]
    low = high = None
    if evidence and name in evidence.scores:
        low, high = evidence.interval(name)
    score = record.score(name) if runs else None
    if choice.MEASURES[measure].less_is_better:
        score, low, high = (None if x is None else -x for x in (score, high, low))
    failure, gone = record.failure(name), search.gone.get(name, '')
    parameters, flops = record.fact(name, 'parameters'), record.fact(name, 'flops')
    return Candidate(
        name=name,
        label=net.label,
        role=search.roles.get(name, 'ladder'),
        fields=dict(net.fields),
        depth=net.depth,
        image_size=net.size,
        parameters=None if parameters is None else int(parameters),
        flops=None if flops is None else int(flops),
        latency_ms=record.fact(name, 'latency_ms'),
        runs=len(runs),
        mean=score,
        low=low,
        high=high,
        status=failure.status if failure else 'left' if gone else 'kept',
        reason=failure.failed if failure else gone,
    )
