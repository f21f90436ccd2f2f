from time import perf_counter, sleep

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.loops.account import ClusterClock
from renshu.loops.report import Clock, Episodes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 2**31))
def test_episodes_against_a_naive_count(num_envs, lengths, seed):
    """Random ends in several rollouts in a row: returns, lengths and steps are those of a plain Python loop."""
    rng = np.random.default_rng(seed)
    episodes = Episodes(num_envs, steps=10)
    steps, resetting = 10, [False] * num_envs
    total, length = [0.0] * num_envs, [0] * num_envs
    for T in lengths:
        reward, ended = rng.normal(size=(T, num_envs)).astype(np.float32), rng.random((T, num_envs)) < 0.4
        valid, expected, infos = np.zeros((T, num_envs), bool), [], {}
        for t in range(T):
            row = []
            for n in range(num_envs):
                valid[t, n] = not resetting[n]
                if resetting[n]:
                    ended[t, n] = False
                else:
                    steps += 1
                    total[n] += float(reward[t, n])
                    length[n] += 1
                    if ended[t, n]:
                        row.append((n, total[n], length[n]))
                        if rng.random() < 0.5:
                            infos[t, n] = {"length": float(length[n])}
                        total[n], length[n] = 0.0, 0
                resetting[n] = ended[t, n]
            expected += [(steps, *episode) for episode in row]
        before = episodes.steps
        count, found = episodes.add(reward, valid, ended, infos)
        assert count == valid.sum() == episodes.steps - before
        assert episodes.steps == steps
        assert list(zip(found.steps, found.envs, found.lengths, strict=True)) == [(s, n, k) for s, n, _, k in expected]
        for name, numbers in found.info.items():
            assert name == "length"
            given = ~np.isnan(numbers)
            assert given.sum() == len(infos)
            np.testing.assert_array_equal(numbers[given], found.lengths[given])
        assert bool(found.info) == bool(infos)
        np.testing.assert_allclose(found.returns, [r for _, _, r, _ in expected], atol=1e-5)


def test_shares_add_up():
    clock = Clock(act=1.0, env=2.0, learn=3.0, total=8.0)
    assert clock.shares() == {"act": 0.125, "env": 0.25, "learn": 0.375, "rest": 0.25}
    clock.reset()
    assert sum(clock.shares().values()) == 1.0


def test_each_second_of_the_cluster_loop_is_in_one_part():
    clock = ClusterClock()
    began = perf_counter()
    with clock.timed("env"):
        sleep(0.02)
        with clock.timed("publish"):
            sleep(0.01)
        clock.add("transfer", 0.005)
    clock.total = perf_counter() - began
    assert clock.publish >= 0.01
    assert clock.transfer == 0.005
    assert clock.counted == pytest.approx(clock.total, abs=2e-3)
    assert set(clock.shares()) == {"wait", "transfer", "learn", "publish", "rest"}
    assert sum(clock.shares().values()) == pytest.approx(1.0)
