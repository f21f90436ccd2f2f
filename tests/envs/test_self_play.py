"""Self-play: copies of the past that never change, one for a whole game, and returns filed under who really played."""

import jax
import numpy as np
import pytest

import renshu
from renshu import DQN, PPO
from renshu.envs.self_play import SelfPlay
from renshu.errors import HyperparameterError, SpaceError

pytestmark = pytest.mark.usefixtures("compiled_fast")
SMALL = {"n_steps": 4, "batch_size": 32, "n_epochs": 1, "net_arch": [8]}


def loop_state(agent):
    return jax.tree.map(np.asarray, agent.trainer.loop_snapshot())


def test_copies_never_change_and_play_whole_games():
    agent = PPO(**SMALL).on("renshu/TicTacToe-v0", num_envs=16, seed=0, opponent=SelfPlay(size=3, every=2))
    seen, slots, before, count = [[], [], []], set(), None, 0
    for _ in range(60):
        agent.learn(1, progress=False)  # one rollout of four steps
        at = loop_state(agent)
        taken, count = int(at.past.count) - count, int(at.past.count)
        assert taken in (0, 1)
        changed = []
        for slot, copies in enumerate(seen):
            now = b"".join(x[slot].tobytes() for x in jax.tree.leaves(at.past.copies))
            if slot < count and now not in copies[-1:]:
                copies.append(now)
                changed.append(slot)
        assert len(changed) <= taken, "only a new copy takes the place of another"
        theirs = np.where(at.envs.inner.seat == 0, at.envs.inner.memory.slot[:, 1], at.envs.inner.memory.slot[:, 0])
        slots |= set(theirs.tolist())
        if before is not None:
            # A game that was running four steps ago and has not begun anew: the same one plays.
            same = (at.running_length > 4) & ~at.first
            np.testing.assert_array_equal(theirs[same], before[same])
        before = theirs
    assert count >= 8
    assert slots == {-1, 0, 1, 2}
    assert len({copy for copies in seen for copy in copies}) == sum(map(len, seen))
    assert 5 <= sum(map(len, seen)) < count, "some copies are left out"
    assert {"seat_0", "seat_1", "past_0", "past_1", "past_2"} == set(agent.recent_info)


def test_copies_are_a_sample_of_the_whole_past():
    pool, counts = SelfPlay(size=4), np.arange(400)
    slots = np.array([int(pool._next(count)) for count in counts])
    assert slots[:4].tolist() == [0, 1, 2, 3]
    assert 4 * (1 + np.log(400 / 4)) == pytest.approx((slots < 4).sum(), rel=0.4)
    ages = [number for end in range(40, 400, 10) for number in held(slots[:end]) / end]
    assert np.mean(ages) == pytest.approx(0.5, abs=0.15), "neither the newest nor the first ones"


def held(slots):
    """Numbers of the copies in the four slots."""
    return np.array([np.flatnonzero(slots == slot)[-1] for slot in range(4)])


def test_past_selves_play_as_they_did():
    # One that has learned to pick 1 in both seats meets itself: both are paid once, so that nobody wins.
    agent = PPO(**{**SMALL, "n_steps": 8, "learning_rate": 1e-2}).on(
        "renshu/TwoPicks-v0", num_envs=32, seed=0, opponent=SelfPlay(size=2, every=1)
    )
    agent.learn(12_000, progress=False)
    late = [np.mean(agent.recent_info[name]) for name in ("past_0", "past_1")]
    assert np.abs(late).max() < 0.2
    # Random play picks 1 in half of the games, which takes 1 back.
    assert agent.evaluate(200).mean == pytest.approx(0.5, abs=0.15)


def test_it_goes_on_from_a_checkpoint_to_the_bit(tmp_path):
    def made():
        return PPO(**SMALL).on("renshu/TicTacToe-v0", num_envs=8, seed=1, opponent="self")

    whole = made().learn(2_000, progress=False, run=tmp_path / "whole")
    half = made()
    half.learn(1_000, progress=False, run=tmp_path / "half")
    again = renshu.Agent.resume(tmp_path / "half")
    again.learn(2_000 - again.steps, progress=False, restart_schedules=False)
    assert again.spec.kwargs == {"opponent": "self"}
    assert whole.steps == again.steps
    a, b = (agent.trainer.loop_snapshot() for agent in (whole, again))
    assert int(a.past.count) > 0
    a, b = (whole.trainer.state.params, a), (again.trainer.state.params, b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize(
    "algorithm",
    [DQN(learning_starts=1, net_arch=[8]), PPO(**SMALL, recurrent="gru", recurrent_size=8)],
    ids=["values", "memory"],
)
def test_a_copy_is_the_learner_as_it_was(algorithm):
    agent = algorithm.on("renshu/StoneTaking-v0", num_envs=8, seed=0, opponent=SelfPlay(2, 1))
    before: list = [None, None]
    for _ in range(30):
        agent.learn(2, progress=False)
        past = agent.trainer.loop_snapshot().past
        copies = [[np.asarray(x[slot]) for x in jax.tree.leaves(past.copies)] for slot in range(2)]
        for slot, copy in enumerate(copies[: int(past.count)]):
            if before[slot] is None or any((a != b).any() for a, b in zip(copy, before[slot], strict=True)):
                before[slot] = copy
                for kept, now in zip(copy, jax.tree.leaves(agent.trainer.actor_state), strict=True):
                    np.testing.assert_array_equal(kept, now)
    assert int(past.count) > 5
    assert sum(len(agent.recent_info[name]) for name in ("past_0", "past_1")) > 0


def test_an_agent_is_an_opponent_that_stays_as_it_is():
    options = {**SMALL, "n_steps": 8, "learning_rate": 1e-2}
    strong = PPO(**options).on("renshu/TwoPicks-v0", num_envs=32, seed=0).learn(6_000, progress=False)
    weak = PPO(**options).on("renshu/TwoPicks-v0", num_envs=8, seed=1, opponent=strong)
    assert weak.evaluate(100).mean < 0  # a newcomer picks 1 in some games, the other in all
    weak.learn(4_000, progress=False)
    assert weak.evaluate(100).mean > -0.2


def test_what_cannot_be():
    with pytest.raises(HyperparameterError, match="at least 2"):
        SelfPlay(size=1)
    with pytest.raises(SpaceError, match="compiled"):
        PPO().on("renshu/TicTacToe-v0", opponent="self", loop="host")
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(SpaceError, match="compiled"):
        PPO().on("renshu/TicTacToe-v0", opponent="self", workers=2)
