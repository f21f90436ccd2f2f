"""Learners of families still to come, with a memory: of sequences, for groups, with goals. The same in both loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.algorithms.value_based.dqn import DQN
from renshu.envs.builtin.memory import Memory
from renshu.envs.device import DeviceEnvs
from renshu.envs.gymnasium.device_as_gym import GymVectorEnv
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.errors import NotFiniteError
from renshu.loops.compiled import CompiledLoop
from renshu.loops.host import HostLoop
from renshu.loops.programs import Programs
from tests.contract.families.goals import BitFlip, Hindsight
from tests.contract.families.groups import Corridor, GroupedQ, GroupedQLearner
from tests.contract.families.sequence_model import SequenceModel
from tests.loops.tiny import same

pytestmark = pytest.mark.usefixtures("compiled_fast")

LOOPS = ("host", "compiled")

SEQUENCES = SequenceModel(
    buffer_size=1024,
    batch_size=32,
    train_freq=2,
    gradient_steps=2,
    learning_rate=3e-3,
    learning_starts=64,
    exploration_final_eps=0.3,
)


def predicted_at_the_junction(agent):
    """Rewards that the model predicts for turning left and right, after the cues left and right: `[2, 2]`."""
    learner, obs = agent.trainer.learner, np.zeros((4, 2, 3), np.float32)
    obs[0, :, 0], obs[-1, :, 1], obs[..., 2] = (-1, 1), 1, np.linspace(0, 1, 4)[:, None]
    first = np.arange(4)[:, None] == [0, 0]
    return learner.unroll(agent.parameters["model"], learner.initial_carry(2), obs, first)[1][-1]


@pytest.mark.parametrize("prioritized", [False, True], ids=["uniform", "prioritized"])
def test_a_sequence_model_begins_with_the_carries_of_its_memory(prioritized):
    """Sequences are of two steps, and the turn is three steps after its cue: only a carry tells of it."""
    algorithm = dataclasses.replace(SEQUENCES, prioritized=prioritized)
    host, compiled = (
        algorithm.on(Memory(length=3), num_envs=4, seed=0, loop=loop).learn(1600, progress=False) for loop in LOOPS
    )
    assert same(host.state, compiled.state)
    assert compiled.evaluate(40).mean >= 0.9
    # Without the cue the mean of these is 0; a return of 1 may be luck.
    np.testing.assert_allclose(predicted_at_the_junction(compiled), [[1, -1], [-1, 1]], atol=0.2)
    if prioritized:
        assert len(np.unique(compiled.state.memory.priorities.tree[0])) > 100  # 2 where no error is written back


def test_newer_latents_are_written_into_the_memory():
    agent = SEQUENCES.on(Memory(length=4), num_envs=4, seed=0).learn(400, progress=False)
    learner, before = agent.trainer.learner, agent.state
    after, _ = jax.jit(learner.update)(before, jax.random.key(0), 1)
    old, ring = before.memory.ring.extras, after.memory.ring
    changed = (old != ring.extras).any(axis=-1)
    assert 0 < changed.sum() <= 32 * 2
    # A sequence that begins with an episode has the cue's latent in both of its rows. That of any other is its carry.
    row, env = np.nonzero(changed & ring.first)
    assert 2 * len(row) == changed.sum()
    latents = np.tanh(ring.obs[row, env] @ agent.parameters["model"]["encoder"])
    for place in (row, row + 1):
        np.testing.assert_allclose(ring.extras[place, env], latents, atol=1e-5)
    assert same(ring._replace(extras=()), before.memory.ring._replace(extras=()))


def test_latents_of_an_update_that_goes_wrong_are_not_written():
    algorithm = dataclasses.replace(SEQUENCES, learning_rate=3e38, gradient_steps=4)
    agent = algorithm.on(Memory(length=4), num_envs=4, seed=0)
    with pytest.raises(NotFiniteError, match="thrown away"):
        agent.learn(400, progress=False)
    assert np.isfinite(agent.state.memory.ring.extras).all()


GROUPED = GroupedQ(
    buffer_size=4096, batch_size=32, train_freq=2, gradient_steps=8, learning_rate=1.0, learning_starts=32, gamma=0.9
)
GROUPS = np.arange(8, dtype=np.int32).reshape(2, 4)
EVENLY, UNEVENLY = [0, 1] * 50, [0, 0, 1, 0, 1] * 8


def group_loops(loop, algorithm=GROUPED, groups=GROUPS):
    """The state of a learner of all environments, and a loop for each group of them."""
    env = Corridor()
    learner = algorithm.build(dataclasses.replace(env.spec(8), rollout_envs=4))
    programs = Programs(learner)
    state, found = programs.init(jax.random.key(0)), []
    for seed, env_id in enumerate(groups):
        make, envs = CompiledLoop, DeviceEnvs(env, 4)
        if loop == "host":
            make, envs = HostLoop, HostEnvs(GymVectorEnv(env, 4))
        key = jax.random.key(10 + seed)
        found.append(make(programs, state, envs, lambda action: action, key=key, seed=seed, env_id=env_id))
    return state, found


def in_turns(state, loops, *orders):
    """States after each of `orders`, in which the groups take their turns on one state."""
    for order in orders:
        for group in order:
            loops[group].state = state
            loops[group].advance(1)
            state = loops[group].state
        yield jax.tree.map(np.array, state)


def optimal(places, gamma):
    """Values of going left and right inside of the corridor, `[places - 2, 2]`: right is best in all of them."""
    right = gamma ** np.arange(places - 3, -1, -1.0)
    return np.stack([[0.1, *gamma * right[:-1]], right], axis=1)


def test_groups_of_environments_take_turns():
    host, compiled = (list(in_turns(*group_loops(loop), EVENLY, UNEVENLY)) for loop in LOOPS)
    assert same(host, compiled)
    evenly, unevenly = compiled
    for state, turns in ((evenly, [50] * 8), (unevenly, [74] * 4 + [66] * 4)):
        ring = state.memory.ring
        np.testing.assert_array_equal(ring.size, 2 * np.array(turns))
        np.testing.assert_array_equal(ring.head, ring.size)
        np.testing.assert_allclose(state.params["table"][1:-1], optimal(6, 0.9), atol=0.01)
        assert int(state.counters.steps) == sum(2 * np.array(turns)) - int(ring.first[1:].sum())


def test_environments_explore_as_their_ids_say():
    """Untrained, the best action is 0 everywhere: actions are 1 in half of the random ones."""
    algorithm = dataclasses.replace(GROUPED, train_freq=1000, buffer_size=8000, learning_starts=0)
    rollouts = [loop.collect().rollout for loop in group_loops("host", algorithm)[1]]
    np.testing.assert_array_equal([rollout.env_id for rollout in rollouts], GROUPS)
    shares = np.concatenate([2 * rollout.action.mean(axis=0) for rollout in rollouts])
    np.testing.assert_allclose(shares, 0.7 ** (1 + np.arange(8)), atol=0.1)


class Naming(GroupedQLearner):
    """Records a number that is rounded otherwise where the compiler knows the ids."""

    def act(self, acting, carry, timestep, key, *, explore):
        env_id = np.arange(64) if isinstance(timestep.env_id, tuple) else timestep.env_id
        return super().act(acting, carry, timestep, key, explore=explore)._replace(extras=jnp.exp(-env_id / 7.0))


def test_ids_are_no_constants_of_the_compiled_program():
    programs = Programs(Naming(GROUPED, dataclasses.replace(Corridor().spec(64), rollout_envs=64)))
    found = []
    for make, envs in (HostLoop, HostEnvs(GymVectorEnv(Corridor(), 64))), (CompiledLoop, DeviceEnvs(Corridor(), 64)):
        key, ids = jax.random.key(1), np.arange(64, dtype=np.int32)
        loop = make(programs, programs.init(key), envs, lambda action: action, key=key, seed=0, env_id=ids)
        loop.advance(1)
        found.append(np.asarray(loop.state.memory.ring.extras))
    np.testing.assert_array_equal(*found)


BITS = {
    "batch_size": 64,
    "buffer_size": 20_000,
    "learning_rate": 1e-3,
    "learning_starts": 400,
    "train_freq": 1,
    "gradient_steps": 4,
    "gamma": 0.9,
    "target_update_interval": 500,
    "exploration_fraction": 0.5,
    "double": True,
    "net_arch": [64],
}


def test_goals_in_hindsight_teach_what_rewards_do_not():
    successes = {}
    for algorithm in (Hindsight(**BITS), DQN(**BITS)):
        agent = algorithm.on(BitFlip(), num_envs=4, seed=0).learn(3500, progress=False)
        successes[type(algorithm)] = agent.evaluate(200, num_envs=50).success_rate
    assert successes[Hindsight] >= 0.9
    assert successes[DQN] <= 0.5


@pytest.mark.parametrize("ideas", [{}, {"prioritized": True, "n_steps": 2}], ids=["plain", "ideas"])
def test_hindsight_is_the_same_in_both_loops(ideas):
    algorithm = Hindsight(**BITS | {"learning_starts": 100, "net_arch": [16]}, **ideas)
    host, compiled = (
        algorithm.on(BitFlip(), num_envs=4, seed=0, loop=loop).learn(600, progress=False) for loop in LOOPS
    )
    assert same(host.state, compiled.state)
    assert int(host.state.counters.updates) > 400
