"""How much each hyperparameter mattered, by Optuna's fANOVA.

Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from penstock.components.tuning.search import Trial
from penstock.components.tuning.space import Parameter, Space

LEAST = 4  # trials from which anything can be said


def importances(space: Space, trials: Sequence[Trial], name: str, seed: int) -> tuple[dict[str, float], str]:
    """Return the importances of the parameters that all trials have, summing to 1, and what is to be said of them.

    Args:
        trials: Completed ones.
        name: Of the metric.
    """
    always = [each for each in space.parameters if not each.parent]
    everywhere = [each for each in always if len({trial.parameters[each.name] for trial in trials}) > 1]
    others = [each.name for each in space.parameters if each.parent]
    note = f"Of parameters with a condition nothing is said here: {', '.join(others)}." if others else ""
    values = {trial.metrics[name] for trial in trials}
    if len(trials) < LEAST or len(values) < 2 or not everywhere:
        return {}, "Too few trials differ to tell what mattered."
    study = optuna.create_study()
    distributions = {each.name: _distribution(each) for each in everywhere}
    for trial in trials:
        point = {each: trial.parameters[each] for each in distributions}
        study.add_trial(optuna.trial.create_trial(params=point, distributions=distributions, value=trial.metrics[name]))
    evaluator = FanovaImportanceEvaluator(seed=seed)
    return dict(get_param_importances(study, evaluator=evaluator)), note


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.type == "categorical":
        return CategoricalDistribution(parameter.choices)
    # Values of other backends lie on no step.
    if parameter.type == "int":
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
