"""The page of a choice, `choice.html`: the answer, the evidence, what is uncertain."""

import os
import pathlib
import shlex
from typing import Any

from console import duration
from evaluation import files
from evaluation.ended import SPLITS
from reporting import drawings, runs, template
from selection.choice import MEASURES, RECOMMENDED_CONFIG, Choice
from selection.report import figures, plots, tables, words
from selection.report.glossary import GLOSSARY

FILE = 'choice.html'


def write(choice: Choice, folder: str | os.PathLike) -> None:
    """Writes `choice.html` into the workdir, in place of an earlier one at once.

    Nothing is computed anew: figures are those of the choice, confusion matrix, mistakes and layers
    those that `evaluate.py` left of the final run.

    Args:
      choice: what was found so far.
      folder: the workdir, which holds the final run.

    Raises:
      UserError: the final run is damaged.
    """
    path = pathlib.Path(folder) / FILE
    text = template.render(
        pathlib.Path(__file__).with_name('choice.html.jinja'),
        choice=choice,
        holds=figures.holds(choice),
        heading=MEASURES[choice.measure].heading,
        paragraph=words.paragraph(choice),
        chosen=_recommended(choice, pathlib.Path(folder)),
        forced=sum(opening.forced for opening in choice.openings),
        growth=plots.growth(choice),
        verdicts=plots.verdicts(choice, choice.verdicts) if choice.verdicts else None,
        pareto=plots.pareto(choice),
        learning_curve=plots.learning_curve(choice),
        tables=tables,
        final=_final(choice, pathlib.Path(folder)),
        delta=figures.size(choice.measure, choice.delta),
        budget=_budget(choice),
        uncertain=words.uncertain(choice),
        glossary=GLOSSARY,
        device=_device(choice.device),
    )
    with files.replacing_file(path) as file:
        file.write_text(text, encoding='utf-8', errors='backslashreplace')


def _recommended(choice: Choice, folder: pathlib.Path) -> dict[str, Any] | None:
    chosen = choice.candidate(choice.recommended)
    if chosen is None:
        return None
    bounded = chosen.low is not None and chosen.high is not None
    config = shlex.quote(os.fspath(folder / RECOMMENDED_CONFIG))
    return {
        'candidate': chosen,
        'net': words.net(choice, chosen),
        'value': figures.value(choice.measure, chosen.mean),
        'interval': figures.span(choice.measure, chosen.low or 0.0, chosen.high or 0.0)
        if bounded
        else '',
        'runs': figures.count(chosen.runs, 'run'),
        'learned': words.beats_constant(choice, chosen),
        'reach': figures.size(choice.measure, choice.delta / 2),
        'command': f'python train.py --config={config}',
    }


def _final(choice: Choice, folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns what `evaluate.py` found out about the final run; None before it did."""
    path = folder / choice.final_run
    there = [s for s in reversed(SPLITS) if (path / 'evaluation' / s / 'evaluation.json').is_file()]
    if not choice.final_run or not there:
        return None
    run = runs.read(os.fspath(path), there[0])
    classes = bool(run.class_names)
    return {
        'run': run,
        'split': there[0],
        'content': run.content,
        'pictures': [drawings.confusion(run), drawings.recalls(run)]
        if classes
        else [drawings.numbers(run)],
        'sheets': drawings.sheets(run) if classes else [],
        'layer_pictures': drawings.layer_pictures(run),
    }


def _budget(choice: Choice) -> str:
    limits = []
    if choice.budget.seconds is not None:
        limits.append(duration(choice.budget.seconds))
    if choice.budget.runs is not None:
        limits.append(figures.count(choice.budget.runs, 'run'))
    return ' and '.join(limits)


def _device(device: dict[str, Any]) -> str:
    """Returns the device of `result.json` in words."""
    if not device:
        return 'an unknown device'
    said = f'{device.get("count", 1)} {device.get("kind", "device")}'
    if device.get('machine'):
        said += f' ({device["machine"]}, {device.get("cpu_cores", "?")} cores)'
    return said
