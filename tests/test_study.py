"""A study in its storage: what a death between two writes leaves, and who takes it over."""

import optuna
import pytest
from optuna.trial import TrialState

from configs import plain_small
from configs.sweeps import default
from configs.sweeps.factors import choice, uniform
from errors import UserError
from sweeping import study as studies
from sweeping.study import BEGUN, END, OVER, WAIT, WORK, Study

pytestmark = pytest.mark.filterwarnings('ignore:Heartbeat of storage:UserWarning')


@pytest.fixture
def open_study(tmp_path):
    def make(*space, **fields):
        space = space or (choice('model.width', 4, 8),)
        return Study(default.get_config(plain_small.get_config(), space, **fields), tmp_path)

    return make


def outcomes(study):
    return [point.outcome for point in study.table().points]


def take(study):
    """Takes the next trial as a worker does."""
    assert study.prepare() == WORK
    trial = study.optuna.ask()
    study.took()
    studies.points.suggest(trial, study.factors)
    return trial


def test_a_death_after_the_answer_and_before_its_state_is_tried_again(open_study):
    study = open_study()
    trial = take(study)
    study.end(trial, 'complete', replicates=[], facts={})
    study.optuna.tell(trial, state=TrialState.FAIL)  # As for one whose heartbeat has stopped.
    assert outcomes(study) == ['interrupted']
    again = take(study)
    assert again.params == trial.params
    study.end(again, 'complete', replicates=[], facts={})
    study.optuna.tell(again, 0.5)
    assert outcomes(study) == ['complete']
    assert study.table().points[0].objectives == (0.5,)


def test_what_failed_is_tried_again_by_the_next_call_alone(open_study):
    study = open_study()
    for _ in range(2):
        trial = take(study)
        study.end(trial, 'failed', reason='planted')
        study.optuna.tell(trial, state=TrialState.FAIL)
    assert outcomes(study) == ['failed', 'failed']
    assert study.prepare() == OVER
    study = open_study()
    assert take(study).params == {'model.width': 4}
    assert outcomes(study)[0] == 'running'


def test_a_process_that_crashes_twice_is_given_up(open_study):
    study = open_study(choice('model.width', 4))
    for expected in ('interrupted', 'failed'):
        trial = take(study)
        study.end(trial, 'crashed', reason='its worker was killed')
        study.optuna.tell(trial, state=TrialState.FAIL)
        assert outcomes(study) == [expected]
    assert study.table().points[0].reason == 'its worker was killed (2 times)'
    assert study.prepare() == OVER


def test_a_trial_of_a_process_that_is_gone_is_taken_over_at_once(open_study):
    study = open_study(choice('model.width', 4))
    trial = take(study)
    trial.set_user_attr(BEGUN, studies.host.here())
    assert study.prepare() == WAIT
    trial.set_user_attr(BEGUN, studies.host.here() | {'began': -1})  # Its number was given again.
    assert study.prepare() == WORK
    assert outcomes(study) == ['waiting']


def test_a_death_in_the_midst_of_drawing_leaves_an_end(open_study):
    study = open_study(
        choice('model.width', 4, 8), uniform('label_smoothing', 0.0, 0.1),
        sampler='tpe', replicates=1, **{'budget.runs': 1},
    )  # fmt: skip
    assert study.prepare() == WORK
    half = study.optuna.ask()
    study.took()
    half.suggest_categorical('model.width', [4, 8])
    study.optuna.tell(half, state=TrialState.FAIL)
    assert outcomes(study) == []
    trial = take(study)
    assert not study.is_surplus(trial)
    study.end(trial, 'complete', replicates=[], facts={})
    study.optuna.tell(trial, 0.5)
    assert study.prepare() == OVER


def test_of_two_equal_draws_the_second_gives_way(open_study):
    study = open_study(sampler='tpe')
    first, second = study.optuna.ask(), study.optuna.ask()
    for trial in (first, second):
        trial.suggest_categorical('model.width', [4])
    assert study.same(first, {'model.width': 4}) is None
    assert study.same(second, {'model.width': 4}).number == first.number


def test_a_study_keeps_its_sweep_and_its_database(open_study, tmp_path):
    study = open_study()
    trial = take(study)
    study.end(trial, 'complete')
    assert trial.user_attrs[END]['outcome'] == 'complete'
    with pytest.raises(UserError, match='it differs in replicates'):
        open_study(replicates=2)
    open_study(**{'budget.hours': 1.0})
    with pytest.raises(UserError, match='whose database is SQLite: leave out --storage'):
        studies.reopen(tmp_path, 'postgresql://leadline@127.0.0.1:1/postgres')
    (tmp_path / 'study.db').unlink()
    with pytest.raises(UserError, match='no longer holds its study'):
        studies.reopen(tmp_path)
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
