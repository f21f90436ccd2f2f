"""Recent episodes: those of the last 10,000 steps, at least 20 and at most 100."""

import numpy as np
import pytest

from renshu.agent.callbacks import StopAtReturn
from renshu.tracking.curves import recent_moments
from renshu.tracking.recent import Recent, first_recent


def naive(steps, now, k):
    """The places of the recent ones among the first k + 1."""
    return [i for i in range(max(0, k - 99), k + 1) if steps[i] > now - 10_000 or i > k - 20]


@pytest.mark.parametrize("longest", [20, 300, 1500, 6000])
@pytest.mark.parametrize("each", [1, 7])
def test_recent_equals_the_naive_one_however_often_it_is_told(longest, each):
    steps = np.cumsum(np.random.default_rng(longest).integers(1, longest, 400))
    recent = Recent()
    for k in range(0, 400, each):
        some = steps[k : k + each]
        recent.add(some.astype(float), some.tolist(), int(some[-1]))
        last = k + len(some) - 1
        assert list(recent.values) == steps[naive(steps, some[-1], last)].tolist()
    assert first_recent(steps).tolist() == [naive(steps, steps[k], k)[0] for k in range(400)]
    assert first_recent(steps[:0]).size == 0


def test_episodes_that_began_together_count_together():
    recent, plain = Recent(150), Recent()
    for now in (75_000, 150_000):
        for each in (recent, plain):
            each.add(range(150), range(now - 149 * 500, now + 1, 500), now)
    assert list(recent.values) == list(range(150))
    assert list(plain.values) == list(range(130, 150)), "the longest alone"
    assert recent.full


def test_few_episodes_are_not_enough():
    recent = Recent()
    recent.add([1.0] * 30, range(30), 30)
    assert not recent.full
    recent.add([1.0] * 70, range(30, 100), 100)
    assert recent.full
    seldom = Recent()
    seldom.add([1.0] * 21, range(0, 21 * 600, 600), 12_000)
    assert seldom.full


def test_a_curve_follows_an_agent_that_has_become_perfect():
    """With CartPole's long episodes a mean of 100 would creep up for 50,000 steps."""
    lengths = np.array([20] * 500 + [500] * 100)
    steps = np.cumsum(lengths)
    mean, std = recent_moments(steps, lengths.astype(float), None)
    perfect = np.flatnonzero(mean >= 499)[0]
    assert steps[perfect] - 500 * 20 <= 10_000
    assert std[-1] == pytest.approx(0.0, abs=1e-6)
    assert recent_moments(steps, lengths.astype(float), 100)[0][perfect] < 130


def test_stopping_follows_too(tiny):
    agent = tiny("renshu/CartPole-v1")
    kept = agent.trainer.recent_returns
    kept.add([20.0] * 100, range(0, 2000, 20), 2000)
    kept.add([500.0] * 20, range(2500, 12_500, 500), 12_500)
    assert np.mean(agent.recent_returns) == 500.0
    metrics = {"return_mean": float(np.mean(agent.recent_returns))}
    assert StopAtReturn("threshold").on_update(agent, metrics) is False
