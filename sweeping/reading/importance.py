"""How much of the differences between points each factor explains, by Optuna's fANOVA."""

import numpy as np
import optuna

from sweeping.reading import summary
from sweeping.reading.axes import Scale, label_key
from sweeping.table import Table

LEAST_POINTS = 8


def importances(table: Table) -> dict[str, float]:
    """Returns the share of the variance of the first objective by factor, greatest first.

    A random forest is fitted to the complete points; a factor's share is the variance of its
    forecasts that the factor brings alone (Hutter et al. 2014, "An efficient approach for assessing
    hyperparameter importance", section 3). What is left is interactions. PED-ANOVA, Optuna's
    default, asks what the best tenth has in common, which would be two or three points here.

    Empty where there are too few points, where all are alike, or where fewer than two factors take
    several values in every point: a factor that is not varied everywhere cannot be judged.
    """
    points = summary.complete(table)
    if len(points) < LEAST_POINTS or np.ptp([point.objectives[0] for point in points]) == 0:
        return {}
    everywhere = [f for f in table.factors if all(f in point.values for point in points)]
    scales = {f: Scale([point.values[f] for point in points]) for f in everywhere}
    scales = {f: scale for f, scale in scales.items() if len(scale.values) > 1}
    if len(scales) < 2:
        return {}
    # Numbers by their place between the ends of the axis: Optuna's fANOVA weighs all values of a
    # range alike, not all ratios, so that of learning rates it would see the greatest alone.
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        f: optuna.distributions.FloatDistribution(0.0, 1.0)
        if scale.numbers
        else optuna.distributions.CategoricalDistribution([label_key(v) for v in scale.values])
        for f, scale in scales.items()
    }
    trials = [
        optuna.trial.create_trial(
            params={
                f: scale.share(point.values[f]) if scale.numbers else label_key(point.values[f])
                for f, scale in scales.items()
            },
            distributions=distributions,
            value=point.objectives[0],
        )
        for point in points
    ]
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # It tells of the study in memory.
    try:
        study = optuna.create_study()
    finally:
        optuna.logging.set_verbosity(said)
    study.add_trials(trials)
    # Not through `get_param_importances`, which makes them sum to 1 and so hides the interactions.
    found = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study)
    return dict(sorted(found.items(), key=lambda item: -item[1]))
