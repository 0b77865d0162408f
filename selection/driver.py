"""A choice, live: the stages ask for runs, the sweep's workers train them, files say what came."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from configs.sweeps import default as sweep_default
from console import Console, duration, percent
from errors import UserError
from evaluation import costs
from evaluation.ended import stored
from selection import chart, choice, confirm, ledger, stages
from selection.candidates import Net, Space
from selection.choice import Choice
from selection.clock import Amount, Clock
from selection.data import Data
from selection.described import describe
from selection.record import TUNING, Outcome, Record, Run
from selection.report import page, words
from selection.search import Search, Settings
from selection.verdict import Measure, scores_of, weights_of
from sweeping import export, points
from sweeping.reading.words import count
from sweeping.run import Call
from sweeping.study import Study
from sweeping.table import FINAL, Point
from training.interruption import Interruption
from training.run_folder import RunFolder

FOLDS = 4
_CLOCK = 'clock.json'


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
      base: training config; its data set, recipe and length are those of all nets.
      budget: of the whole choice.
      delta, measure: as in `choice.Choice`.
      goal: such as `accuracy>=0.95`; '' for none.
      costs_file: csv file with a cost matrix; '' where `measure` is not cost.
      limits: of `sweep` configs, such as {'parameters': 100_000}.
      cost: fact by which nets are cheaper.
      predict_batch: of how many examples at once latency and memory are.
      forced: whether the test split may be opened a second time.
    """

    base: Any
    budget: Amount
    delta: float = 0.01
    measure: Any = 'accuracy'
    goal: str = ''
    costs_file: str = ''
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    cost: str = 'flops'
    predict_batch: int = 1
    forced: bool = False


def choose(
    request: Request, folder: pathlib.Path, storage: str, console: Console, started: float
) -> bool:
    """Chooses a net and trains it; arguments are as of `Driver`.

    Returns:
      Whether it came to the end; else it was interrupted, and the same call goes on.

    Raises:
      UserError: something the user can mend, with the remedy.
    """
    there = choice.read(folder) if (folder / choice.FILE).is_file() else None
    before = choice.Budget(request.budget.seconds, request.budget.runs)
    if there and there.finished and (there.budget, there.delta) == (before, request.delta):
        console.line(f'{folder} holds a choice that has ended:', always=True)
        return shown(there, folder, console)
    if there and there.finished:
        ledger.check(folder, request.forced)
    driver = Driver(request, folder, storage, console, started)
    ended = driver.run()
    if ended:
        return shown(driver.choice, folder, console)
    console.line(
        f'Interrupted: what is known is in {folder}; the same command goes on.', always=True
    )
    return False


def shown(found: Choice, folder: pathlib.Path, console: Console) -> bool:
    """Prints the answer and where everything is."""
    console.line('', always=True)
    console.line(words.paragraph(found), always=True)
    config = folder / choice.RECOMMENDED_CONFIG
    console.line(
        f'Everything is in {folder}: the report {folder / page.FILE}, the config {config}, the '
        f'trained net {folder / found.final_run}. Train it again: python train.py '
        f'--config={config}',
        always=True,
    )
    return True


class Driver:
    """One call of a choice.

    Args:
      request: of the user.
      folder: the workdir; made where it is not there.
      storage: URL of the study's database, which several hosts share; '' for SQLite in the folder.
      console: says what happens.
      started: `time.monotonic()` when the budget began.

    Raises:
      UserError: something the user can mend, with the remedy.
    """

    def __init__(
        self,
        request: Request,
        folder: pathlib.Path,
        storage: str,
        console: Console,
        started: float,
    ):
        self.request, self.folder, self.console = request, folder, console
        self._started = started
        self.quiet = Console(quiet=True)
        self.data = Data(request.base, console)
        self._audit = tuple(self.data.audit())
        classes = self.data.source.class_names
        self.costs = None
        if request.costs_file:
            self.costs = costs.read(pathlib.Path(request.costs_file), classes)
        objective = 'validation_accuracy' if classes else 'validation_loss'
        limits = {f'limits.{name}': most for name, most in request.limits.items()}
        self.sweep = sweep_default.get_config(
            request.base, (), sampler=points.ASKED, replicates=1, vary_splits=False,
            objective=objective, predict_batch=request.predict_batch, **limits,
        )  # fmt: skip
        if request.goal and (request.measure == 'loss') == bool(classes):
            holds = 'classes' if classes else 'numbers: write loss<=BOUND'
            raise UserError(f'--goal={request.goal}: labels of {self.data.name} are {holds}.')
        self.measure: Any = request.measure if classes else 'loss'  # Checked where it is read.
        weights = weights_of(self.data.labels, cast(Measure, self.measure))
        self.record = Record(
            request.base.dataset.folds, self.data.groups(), weights, cost=request.cost
        )
        self.study = Study(self.sweep, folder, storage)
        self.names: dict[str, str] = {}  # Of runs, by key of their points.
        self._shown_stage = ''

    def run(self) -> bool:
        """Goes through all stages; returns whether it came to the end.

        Raises:
          UserError: something the user can mend, with the remedy.
        """
        before = RunFolder(self.folder).read_json(_CLOCK) or {'seconds': 0.0, 'wanted': ''}
        with (
            chart.live(self.console) as self.draw,
            Interruption() as self.signals,
            Call(
                self.study,
                self.signals,
                self.console,
                math.inf,
                self._called,
                self._workers_on_cpu(),
            ) as self.call,
        ):
            self.clock = Clock(
                self.request.budget, before['seconds'], self._started, self._final_price,
                len(self.call.processes), lambda: len(self.record.outcomes),
            )  # fmt: skip
            self._introduce()
            same = before['wanted'] == self._wanted()
            self.search = self._search(before['decided'] if same else [])
            if not (self.folder / choice.FILE).exists():
                self.save()
            for runs in stages.choose(self.search):
                self._save_clock()
                if self.train(runs):
                    self.save()
                if self.signals.received:
                    return False
            self.search.stage = 'confirmation'
            folders = confirm.train(self)
        if folders is None:
            return False
        self.save(finished=True, **confirm.judge(self, folders))
        return True

    def _workers_on_cpu(self) -> int:
        """Returns two where there are cores for them: one leaves cores idle while it compiles.

        But one where latency counts, which the other would disturb.
        """
        latency = 'latency_ms' in (*self.request.limits, self.request.cost)
        return 1 if latency or (os.cpu_count() or 1) < 2 else 2

    def _introduce(self) -> None:
        """Says what will be chosen from what, and how."""
        data, request, call = self.data, self.request, self.call
        classes = len(data.source.class_names)
        what = f'{len(data.members):,} {data.source.holds}'
        what += f' in {classes} classes' if classes else ''
        seconds, runs = request.budget
        budget = f'{runs} runs' if seconds is None else duration(seconds)
        workers = count(len(call.processes), 'worker')
        self.console.line(
            f'Leadline  choice for {data.name}: {what}, and {len(data.test):,} sealed for the '
            f'test; {workers} on {count(call.devices, f"{call.platform} device")}',
            always=True,
        )
        for sentence in self._audit:
            self.console.line(f'          {sentence}')
        self.console.line(
            f'Plan      budget {budget}, {self.record.folds} folds, differences of '
            f'{request.delta:g} in {self.measure.replace("_", " ")} matter; everything goes into '
            f'{self.folder}'
        )

    def _search(self, decided: Sequence[bool]) -> Search:
        """Returns the search before its first stage; `decided` as of an earlier call."""
        space = Space(self.data.facts())
        settings = Settings(
            delta=self.request.delta,
            folds=self.record.folds,
            rate=self.request.base.optimizer.learning_rate,
            decay=self.request.base.optimizer.weight_decay,
            subset=self.request.base.dataset.subset,
            constant=self.data.constant_score(self.measure),
        )
        search = Search(space, settings, self.record, self.clock, decided)
        search.propose(space.ladder(space.sizes[0])[:1], 'ladder')
        return search

    # Runs.

    def train(self, runs: Sequence[Run]) -> bool:
        """Has runs trained, as far as the budget of the search allows, and takes their outcomes.

        Returns:
          Whether any was trained now: a call that goes on finds earlier ones.
        """
        values = {run.key: self._values(run) for run in runs}
        for (name, number), of_run in values.items():
            what = f'run {number}' if number < TUNING else 'to tune'
            self.names[points.key(of_run)] = f'{name}, {what}'
        before = self._train(list(values.values()), self.clock.total)
        there = self._points()
        for run in runs:
            point = there.get(points.key(values[run.key]))
            outcome = self._outcome(run, point) if point else None
            if outcome:
                self.record.add(run, outcome)
                self.search.spend(1, outcome.seconds)
        return before < len(runs)

    def _train(self, values: Sequence[dict[str, Any]], part: float) -> int:
        """Has points trained until a part of the budget is spent; returns how many had ended."""
        there = self._points()
        ended = [k for k in map(points.key, values) if k in there and there[k].outcome in FINAL]
        self.study.ask(values)
        self.call.control.until(self.clock.deadline(part))
        self.call.to_the_end()
        return len(ended)

    def _points(self) -> dict[str, Point]:
        return {points.key(point.values): point for point in self.study.table().points}

    def _values(self, run: Run) -> dict[str, Any]:
        return {**run.net.fields, **self.data.fields(run.number)}

    def _called(self, values: Mapping[str, Any]) -> str:
        return self.names.get(points.key(values), '')

    def _outcome(self, run: Run, point: Point) -> Outcome | None:
        """Returns what came of a run from its files; None where it has not ended."""
        if point.outcome in ('infeasible', 'diverged', 'failed'):
            status = 'infeasible' if point.outcome == 'infeasible' else 'failed'
            reason = f'{point.outcome} {point.reason}'.strip()
            return Outcome(failed=reason, facts=point.facts, status=status)
        if point.outcome != 'complete':
            return None
        replicate = point.replicates[0]
        folder = self.study.folder / replicate.folder
        found = stored(RunFolder(folder), 'validation')
        images = self.data.fold(run.number, run.net.fields.get('dataset.subset'))
        hashes = self.data.source.hashes[self.data.members[images]]
        if not np.array_equal(found['hash'], hashes):
            raise UserError(
                f'The images of {folder} are not those of {self.request.base.dataset.name} as it '
                'is now: the data set was changed. Choose another --workdir.'
            )
        return Outcome(
            images=images,
            scores=self.scores(found),
            seconds=replicate.seconds['total'],
            compile_seconds=replicate.seconds['compile'],
            facts=point.facts,
            folder=replicate.folder,
        )

    def scores(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the score of each image from what a run predicted."""
        if 'logits' in found:
            return scores_of(found['logits'], found['label'], self.measure, self.costs)
        deviation = self.data.labels.std()
        return -(((found['prediction'] - found['label']) / deviation) ** 2)

    def train_final(
        self, wanted: Sequence[tuple[Net, dict[str, Any]]], within_budget: bool = True
    ) -> list[str]:
        """Trains nets on all data but the test split.

        Args:
          wanted: net, and values of the fields of its run.
          within_budget: end with it.

        Returns:
          The folder of each run, from the workdir; '' of one that has not ended well.
        """
        self.names |= {points.key(v): f'{net.name}, all data' for net, v in wanted}
        part = self.clock.whole if within_budget else math.inf
        self._train([values for _, values in wanted], part)
        there = self._points()
        folders = []
        for _, values in wanted:
            point = there.get(points.key(values))
            complete = point is not None and point.outcome == 'complete'
            folders.append(point.replicates[0].folder if point and complete else '')
            if point and complete:
                self.search.spend(1, point.replicates[0].seconds['total'])
        return folders

    def _final_price(self) -> float:
        """Returns what the final fit will take."""
        net = self.search.recommended() or next(iter(self.search.alive()), None)
        return confirm.price(self, net) if net else 0.0

    # What is written.

    def save(self, finished: bool = False, **more: Any) -> None:
        """Writes what is known: choice.json, the recommended config, the page, the clock."""
        self._save_clock()
        recommended, request = self.recommended(), self.request
        found = describe(
            self.search, self.data, recommended, self.measure, request.goal, request.budget,
            self.folder,
        )  # fmt: skip
        self.choice = dataclasses.replace(
            found, audit=self._audit, finished=finished, predict_batch=request.predict_batch, **more
        )
        config = self.final_config(recommended)
        text = export.config_file(config, self._docstring(recommended))
        RunFolder(self.folder).write_text(choice.RECOMMENDED_CONFIG, text)
        choice.write(self.choice, self.folder)
        new = self.search.stage != self._shown_stage
        self._shown_stage = self.search.stage
        if self.record.outcomes:
            self.draw(self.choice, new and not finished)
        if new or finished:  # Its plots take a second or two.
            page.write(self.choice, self.folder)

    def _save_clock(self) -> None:
        content = {'seconds': self.clock.seconds(), 'decided': self.search.decided}
        RunFolder(self.folder).write_json(_CLOCK, {**content, 'wanted': self._wanted()})

    def _wanted(self) -> str:
        """Returns what the stages' decisions depend on."""
        request = self.request
        wanted = (*request.budget, request.delta, self.measure, request.limits, request.cost,
                  request.predict_batch)  # fmt: skip
        return repr(wanted)

    def recommended(self) -> Net:
        """Returns the net to take; before the first run the smallest."""
        found = self.search.recommended() or next(iter(self.search.alive()), None)
        if found is None:
            raise UserError(
                'No net could be trained: '
                + '; '.join(f'{n} {o.failed}' for (n, _), o in self.record.outcomes.items())[:500]
            )
        return self.search.tuned(found)

    def final_config(self, net: Net) -> Any:
        """Returns the training config of a net on all data but the test split."""
        fields = {**net.fields, **self.data.final_fields}
        (config,) = points.configs(self.sweep, fields, [0])
        config.update_from_flattened_dict({n: self.sweep.base[n] for n in points.OF_RUNS})
        return config

    def _docstring(self, net: Net) -> str:
        runs = self.record.numbers(net.name)
        score = self.record.score(net.name)
        said = 'not trained yet' if not runs else f'{percent(score)} in {len(runs)} runs over folds'
        return f'What choose.py recommends: {net.label}; {said}.'
