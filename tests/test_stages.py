"""The stages of a choice in simulated worlds, where the right answer is known."""

import itertools
import math

import numpy as np
import pytest
from worlds import ARRAYS, PHOTOS, ROWS, World, choose

from selection.candidates import Space
from selection.clock import Amount
from selection.record import TUNING
from selection.verdict import holm

DELTA = 0.01
PLENTY = Amount(runs=250)
RATE = 'optimizer.learning_rate'
LADDER = [net.name for net in Space(ARRAYS).ladder(32)]


def up_to(depth, gain=0.03):
    """Accuracy that grows with each layer up to so many, and needs 16 filters at first."""

    def accuracy(net):
        narrow = math.log2(16 / min(16, net.fields.get('model.width', 16)))
        return 0.75 + gain * min(net.depth, depth) - 0.02 * narrow

    return accuracy


def guessed(net):
    """Accuracy where the images tell nothing of five classes."""
    return 0.2


def better(names, gain):
    """Accuracy of a world where three layers suffice and each of these changes helps."""
    return lambda net: up_to(3)(net) + gain * len({change.name for change in net.changes} & names)


def sharp(accuracy, **options):
    """A world without chance."""
    return World(accuracy, seed_sd=0.0, alike=1.0, images=4000, **options)


def trained(world, *stages):
    """Names of the nets that stages trained, in their order."""
    of_stages = (runs for stage, runs in world.rounds if stage in stages)
    return [*dict.fromkeys(run.net.name for runs in of_stages for run in runs)]


def said(search, name, reference):
    return [a.answer for a in search.answers if (a.name, a.reference) == (name, reference)]


# What the answer is.


@pytest.mark.parametrize('depth', [1, 2, 3])
def test_the_ladder_ends_after_two_rungs_in_vain(depth):
    world = sharp(up_to(depth))
    search = choose(world, PLENTY)
    rungs = [name for name in trained(world, 'ladder') if name in LADDER
             and search.roles[name] == 'ladder']  # fmt: skip
    assert rungs in (LADDER[: depth + 2], LADDER[: depth + 3])  # They are trained in pairs.
    assert search.recommended().name == LADDER[depth - 1]


@pytest.mark.parametrize('seed', range(3))
def test_depth_beyond_what_is_needed_is_not_said_to_help(seed):
    world = World(up_to(3), seed=seed)
    search = choose(world, PLENTY)
    assert search.recommended().depth >= 3
    beyond = [a for a in search.answers if a.idea == 'depth'
              and search.nets[a.reference].depth >= 3]  # fmt: skip
    assert beyond
    assert not [a for a in beyond if a.answer == 'better']


def test_depth_that_helps_up_to_the_last_rung_is_found():
    search = choose(World(lambda net: 0.7 + 0.025 * (net.rung or 0)), PLENTY)
    assert search.recommended().name.startswith(LADDER[-1])
    assert said(search, LADDER[-1], LADDER[-2]) == ['better']


@pytest.mark.parametrize('seed', range(3))
def test_where_nothing_can_be_learned_the_smallest_net_is_taken(seed):
    search = choose(World(guessed, seed=seed), PLENTY, constant=0.2)
    assert search.recommended().name == 'linear'
    assert not [a for a in search.answers if a.answer == 'better']


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('facts', [ARRAYS, PHOTOS, ROWS], ids=lambda facts: facts.holds)
def test_the_cheapest_within_half_of_delta_is_taken_and_answers_are_the_evidence(seed, facts):
    def accuracy(net):
        rng = np.random.default_rng([seed, *map(ord, net.name)])
        return 0.85 + 0.01 * rng.standard_normal()

    search = choose(World(accuracy, seed=seed), PLENTY, facts)
    record, best = search.record, search.recommended()
    runs = sorted(len(record.numbers(net.name)) for net in search.alive())[-2]
    level = {net.name: record.score(net.name, range(runs)) for net in search.alive()
             if len(record.numbers(net.name)) >= runs}  # fmt: skip
    cheaper = [score for name, score in level.items()
               if record.price(search.nets[name]) < record.price(best)]  # fmt: skip
    assert level[best.name] >= max(level.values()) - DELTA / 2
    assert all(score < max(level.values()) - DELTA / 2 for score in cheaper)
    for a in search.answers:
        scores = [record.score(name, range(a.runs)) for name in (a.name, a.reference)]
        assert a.difference == pytest.approx(scores[0] - scores[1])
        low, high = a.difference - a.half_width, a.difference + a.half_width
        assert a.answer == ('better' if low > 0 else 'worse' if high < 0 else
                            'no better' if high < DELTA else 'cannot tell')  # fmt: skip
        assert bool(a.settle) == (a.answer == 'cannot tell')
    last = [a for a in search.answers if a.stage == 'finalists']
    evidence = record.evidence([net.name for net in search.repeated()])
    level = 0.05 * len(last) / len(search.judged())
    verdicts = holm(evidence, [(a.name, a.reference) for a in last], DELTA, level)
    assert [v.half_width for v in verdicts] == pytest.approx([a.half_width for a in last])


# How it is found.


def test_inferior_nets_leave_and_the_others_have_equally_many_runs():
    world = sharp(up_to(4, gain=0.02))
    level = []

    def each(search):
        stage, runs = world.rounds[-1]
        if stage in ('repeats', 'finalists'):
            level.append({search.record.repeats(run.net.name) for run in runs})

    search = choose(world, PLENTY, each=each)
    assert level
    assert all(len(repeats) == 1 for repeats in level)
    assert search.gone['plain-3'].startswith('surely worse than ')
    assert search.record.repeats('plain-3') < search.record.repeats(search.recommended().name)


def test_rates_are_chosen_by_runs_that_no_verdict_reads():
    """The rate matters, its optimum lies beyond the edge; scores of tuning runs are no scores."""

    def accuracy(net):
        rate = net.fields.get(RATE, 0.1)
        return up_to(3)(net) - 0.05 * abs(math.log10(rate / (0.1 * 10**1.5)))

    world = sharp(accuracy)
    search = choose(world, PLENTY)
    tried = {run.net.fields[RATE] for stage, runs in world.rounds for run in runs
             if stage == 'tuning' and run.net.name.startswith('plain-5')}  # fmt: skip
    assert sorted(tried) == pytest.approx([0.1 * 10 ** (i / 2) for i in (-1, 0, 1, 2, 3)])
    assert search.rates[''] == pytest.approx(0.1 * 10**1.5)
    assert search.recommended().fields[RATE] == search.rates['']
    for stage, runs in world.rounds:
        assert {run.number >= TUNING for run in runs} == {stage == 'tuning'}
    assert {net.name for net in search.nets.values()}.isdisjoint(trained(world, 'tuning'))


def test_rates_that_are_alike_stay_as_they_are():
    search = choose(World(guessed), PLENTY)
    assert search.rates.keys() == {'', 'plain-1'}
    assert choose(sharp(guessed), PLENTY).rates == {'': 0.1, 'plain-1': 0.1}


def test_a_change_that_helps_is_found_and_the_joint_pass_goes_around_it():
    world = sharp(better({'gelu', 'average'}, 0.02))
    search = choose(world, Amount(runs=300))
    chosen = search.recommended().name
    assert chosen == 'plain-3+gelu+average'
    asked = [a for a in search.answers if a.stage == 'questions']
    helped = [a for a in asked if a.answer == 'better']
    assert {(a.idea, a.name) for a in helped} >= {('activation', chosen), ('pooling', chosen)}
    assert {search.nets[a.reference].rung for a in asked} == {2, 3}, 'the choice and one larger'
    assert {a.idea for a in asked if chosen in (a.name, a.reference)} == {
        'width', 'augment', 'narrow', 'head', 'kernel', 'activation', 'pooling', 'norm',
        'normalization',
    }  # fmt: skip
    around = trained(world, 'joint')
    assert [name for name in around if name.startswith('plain-2+') and name.endswith('+w32')]
    for name in around:
        fields = search.nets[name].fields
        assert 'gelu' in fields.get('model.activation', '') or 'model.pooling' in fields


@pytest.mark.parametrize('seconds', [24, 56, 60])
def test_the_smallest_net_can_be_asked_about_where_the_budget_is_for_few(seconds):
    world = World(lambda net: 0.75, seconds=lambda net: 0.5 + net.cost / 2e6)
    search = choose(world, Amount(seconds=float(seconds)))
    assert RATE in search.nets['plain-1'].fields


def test_no_net_is_trained_under_two_names_and_no_pair_is_asked_about_twice():
    search = choose(sharp(better({'wide'}, 0.02)), Amount(runs=300))
    assert '+wide' in search.recommended().name
    nets = list(search.nets.values())
    assert not [(a.name, b.name) for a, b in itertools.combinations(nets, 2) if a.equals(b)]
    asked = [frozenset((a.name, a.reference)) for a in search.answers if a.stage == 'questions']
    assert len({*asked}) == len(asked)


def test_neighbours_of_a_residual_net_have_its_changes_as_far_as_they_can():
    space = Space(PHOTOS)
    residual = space.residual((1, 1, 1), 32)
    (rung,) = [net for net in space.ladder(32) if net.name == residual.name]
    chosen = rung.at_rate(0.3).changed('no-skip', 'without', {'model.skip': False})
    around = space.around(chosen)
    assert {net.fields['model.family'] for net in around} == {'residual'}
    assert {net.fields[RATE] for net in around} == {0.3}
    assert {net.size for net in around} == {32, 64}
    assert 'model.skip' not in space.around(rung.at_rate(0.3))[2].fields


def test_a_change_that_needs_another_rate_gets_it_and_rates_are_tried_again():
    """Flatten is better by far, at a tenth of the rate that all others need."""

    def accuracy(net):
        flat = net.fields.get('model.head.pooling') == 'flatten'
        best = 0.01 if flat else 0.1
        off = abs(math.log10(net.fields.get(RATE, 0.1) / best))
        return up_to(3)(net) + 0.08 * flat - 0.07 * off

    world = sharp(accuracy)
    search = choose(world, PLENTY)
    assert search.recommended().fields['model.head.pooling'] == 'flatten'
    assert search.recommended().fields[RATE] == pytest.approx(0.01)
    tried = trained(world, 'changes')
    assert tried.index('plain-3+flatten') + 1 == tried.index('plain-3+flatten+rate0.0316')
    assert 'plain-3+flatten+rate0.01' in tried


def test_a_small_budget_begins_in_the_middle_of_the_ladder_and_is_spent():
    world = World(up_to(6, 0.02), seconds=lambda net: 2 + net.cost / 2e7)
    search = choose(world, Amount(seconds=300.0))
    rungs = [name for name in trained(world, 'ladder') if name in LADDER]
    assert rungs[:2] == ['plain-1', 'plain-5']
    assert search.recommended().depth >= 5
    assert world.spent > 0.8 * 300


@pytest.mark.parametrize('seconds', [46, 60, 90])
def test_the_smallest_budget_of_seconds_judges_a_net_that_learns(seconds):
    """Each run takes 3 s, the final fit 24 s with its evaluation."""
    search = choose(World(up_to(3, 0.1), seconds=lambda net: 3.0), Amount(seconds=float(seconds)))
    assert search.recommended().depth >= 3
    assert search.record.numbers(search.recommended().name)


# What it may take.


@pytest.mark.parametrize('facts', [ARRAYS, PHOTOS], ids=['one size', 'two sizes'])
def test_a_budget_of_runs_is_never_exceeded(facts):
    for runs in (4, 5, 8, 14, 20, 27, 40, 60, 90):
        world = World(up_to(3), images=240)
        search = choose(world, Amount(runs=runs), facts)
        assert world.spent <= runs
        assert search.recommended().depth == 1 or runs >= 8
    assert search.answers


@pytest.mark.parametrize('minutes', [2, 10, 60])
def test_a_budget_of_seconds_is_kept_within_a_round(minutes):
    world = World(up_to(5), images=240, seconds=lambda net: 2 + net.cost / 1e6)
    choose(world, Amount(seconds=60.0 * minutes), PHOTOS)
    longest = max(sum(world.seconds(run.net) for run in runs) for _, runs in world.rounds)
    assert world.spent <= 60 * minutes + longest
    assert world.now > 0.35 * 60 * minutes


def test_interrupted_it_goes_on_as_if_it_had_not_been():
    """Runs that are there take no time, but the clock is beyond the shares of the first stages."""
    options = {'images': 240, 'seconds': lambda net: 2 + net.cost / 1e6}
    budget = Amount(seconds=1200.0)
    whole = World(up_to(3), **options)
    undisturbed = choose(whole, budget, PHOTOS)
    again = World(up_to(3), **options)
    again.now = 1000.0
    search = choose(again, budget, PHOTOS, before=undisturbed.decided)
    assert search.record.outcomes.keys() == undisturbed.record.outcomes.keys()
    assert search.answers == undisturbed.answers
    assert search.recommended() == undisturbed.recommended()


# What goes wrong.


def test_nets_that_cannot_be_trained_are_passed_over():
    failing = {'plain-2': 'failed', 'residual-7': 'infeasible', 'plain-3+gelu': 'failed'}
    world = World(up_to(7), failing=lambda net: failing.get(net.name, ''))
    search = choose(world, PLENTY)
    assert search.recommended().name not in failing
    assert search.recommended().depth >= 5
    assert {a.name for a in search.answers}.isdisjoint(failing)
    assert len(trained(world, 'ladder')) > 6, 'one that fails does not end the ladder'


def test_a_ladder_that_becomes_infeasible_ends():
    world = sharp(up_to(99), failing=lambda net: 'infeasible' * (net.depth > 3))
    search = choose(world, PLENTY)
    assert search.recommended().name.startswith('plain-3')
    rungs = [name for name in trained(world, 'ladder') if name in LADDER]
    assert len([name for name in rungs if search.record.failure(name)]) <= 4


def test_where_all_nets_fail_none_is_recommended():
    assert choose(World(guessed, failing=lambda net: 'failed'), PLENTY).recommended() is None


@pytest.mark.parametrize('seed', range(12))
def test_whatever_nets_come_to_there_is_an_answer(seed):
    rng = np.random.default_rng(seed)
    drawn = {}

    def accuracy(net):
        strange = 0.9 if net.depth == 0 and seed % 3 == 0 else rng.normal(0.8, 0.03)
        return drawn.setdefault((net.name, net.fields.get(RATE)), min(strange, 0.99))

    broken = {}
    world = World(
        accuracy, images=120, seed=seed, seconds=lambda net: 2 + net.cost / 2e7,
        failing=lambda net: broken.setdefault(net.name, 'failed' * int(rng.random() < 0.15)),
    )  # fmt: skip
    budget = Amount(runs=40 * seed + 5) if seed % 2 else Amount(seconds=300.0 * seed + 60)
    facts = (ARRAYS, PHOTOS, ROWS)[seed // 2 % 3]
    search = choose(world, budget, facts, constant=(None, 0.79)[seed // 4 % 2])
    found = search.recommended()
    assert found is None or not search.record.failure(found.name)
    assert found or not search.alive()


def test_the_repeats_of_a_lone_neighbour_do_not_decide():
    """A budget too small for repeats: the joint pass must not give them to some nets alone."""
    for runs in range(10, 40):
        world = World(up_to(4), seed=runs, images=400)
        choose(world, Amount(runs=runs))
        repeated = {name for stage, of in world.rounds for name in [run.net.name for run in of]
                    if stage == 'joint' and max(run.number for run in of) > 0}  # fmt: skip
        assert not repeated or 'repeats' in {stage for stage, _ in world.rounds}
