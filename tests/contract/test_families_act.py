"""Learners of families that are still to come: with a memory, planning, evolving. Each is the same in both loops."""

from contextlib import nullcontext

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.envs.builtin.memory import Memory
from renshu.envs.device import DeviceEnvs
from renshu.envs.gymnasium.device_as_gym import GymVectorEnv
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.errors import SpaceError
from renshu.loops.compiled import CompiledLoop
from renshu.loops.host import HostLoop
from renshu.types import TimeStep
from tests.contract.families.environments import BOARDS, Board, Point, TicTacToe
from tests.contract.families.population import Population
from tests.contract.families.recurrent import Recurrent
from tests.contract.families.search import Search
from tests.loops.tiny import advanced, same

BOTH = pytest.mark.parametrize("loop", ["host", "compiled"])


def trained(algorithm, env, *, num_envs, updates):
    """Train in both loops to the same state; returns both agents, and the episodes that finished."""
    host, compiled = (algorithm.on(env, num_envs=num_envs, seed=1, loop=loop) for loop in ("host", "compiled"))
    theirs, episodes = advanced(host, updates), advanced(compiled, updates)
    assert same(host.state, compiled.state)
    assert int(host.state.counters.updates) == updates
    assert host.steps == compiled.steps == int(host.state.counters.steps)
    for a, b in zip(theirs, episodes, strict=True):
        np.testing.assert_array_equal(a, b)  # returns too: all rewards are whole numbers
    return host, compiled, episodes


def test_a_cue_is_remembered():
    host, compiled, (_, _, returns, _) = trained(Recurrent(), Memory(length=3), num_envs=32, updates=118)
    assert abs(returns[:200].mean()) < 0.5
    assert returns[-500:].mean() >= 0.9
    assert compiled.evaluate(96, num_envs=32).mean >= 0.9
    # Episodes take 5 rows and rollouts 7, so that the next begins within one: `learn` unrolls what acted.
    for agent in (host, compiled):
        assert agent.trainer.start_loop(nullcontext).advance(0).metrics["drift"] < 1e-5


def test_the_last_move_is_found_by_search_and_learned_from_it():
    game = TicTacToe()
    host, compiled, _ = trained(Search(game=game), game, num_envs=32, updates=60)
    for agent in (host, compiled):
        assert agent.evaluate(96, num_envs=32).mean == 1.0
    boards, obs = Board(jnp.asarray(BOARDS)), jax.vmap(game.see)(BOARDS)
    learner = host.trainer.learner

    @jax.jit
    def wins(params):
        moves = learner.net.apply(params, obs).argmax(axis=-1)
        return jnp.mean(jax.vmap(game.step, (0, 0, None))(boards, moves, jax.random.key(0)).reward == 1)

    assert wins(host.trainer.programs.init(jax.random.key(0)).params) < 0.4
    assert wins(host.parameters) >= 0.8


class Opaque(gymnasium.Env):
    """A game that nobody can look into."""

    observation_space, action_space = TicTacToe.observation_space, TicTacToe.action_space


def test_search_needs_the_environments_own_state():
    with pytest.raises(SpaceError, match=r"Search plans in the environment's own state, and Opaque gives none"):
        Search(game=TicTacToe()).on(Opaque())
    with pytest.raises(SpaceError, match="gives none"):
        Search(game=TicTacToe()).on(TicTacToe()).evaluate(3, env=Opaque())
    with pytest.raises(SpaceError, match="evaluate"):
        Search(game=TicTacToe()).on(TicTacToe()).predict(np.zeros(Opaque.observation_space.shape, np.float32))


def test_a_population_climbs():
    host, compiled, episodes = trained(Population(), Point(), num_envs=16, updates=30)
    _, envs, returns, lengths = episodes
    assert (np.bincount(envs) == 30).all(), "one episode of each environment in each rollout"
    assert lengths.sum() == compiled.steps
    assert int(compiled.state.counters.episodes) == len(lengths) == 30 * 16
    assert len(set(lengths)) > 5
    assert lengths.max() == Point.max_episode_steps
    np.testing.assert_array_equal(returns, lengths)
    assert compiled.evaluate(96, num_envs=16).mean >= 19
    untrained = host.trainer.programs.init(jax.random.key(0))
    assert host.evaluate(96, num_envs=16).mean >= 19
    # Members that act in an evaluation are counted from 0, whatever their number.
    assert host.evaluate(20, num_envs=10, deterministic=False).mean > 8
    host.trainer.state = untrained
    assert host.evaluate(96, num_envs=16).mean < 8


def collected(agent, env, loop, num_envs, env_id=()):
    """Collect one rollout in `num_envs` environments of an agent's own kind, which are those that `env_id` names."""
    trainer = agent.trainer
    options = {"key": jax.random.key(0), "seed": 0, "env_id": env_id}
    given = trainer.programs, agent.state
    if loop == "host":
        envs = HostEnvs(GymVectorEnv(env, num_envs), 10.0, env.name)
        return HostLoop(*given, envs, trainer.fitted.decode_action, **options).collect().rollout
    started = CompiledLoop(*given, DeviceEnvs(env, num_envs), trainer.fitted.decode_action, **options)
    keys = jax.random.split(jax.random.key(0), trainer.learner.needs.steps)
    return jax.jit(started.train_iteration.collect)(trainer.actor_state, started.loop_state, keys)[1]


@BOTH
def test_two_loops_with_half_of_the_population_each(loop):
    env = Point(spread=0.0)  # all episodes begin alike: what differs is the member
    agent = Population(sigma=1.0).on(env, num_envs=8, seed=1)
    balanced = agent.state._replace(params=jnp.array([[2.0, -2.0], [2.0, -2.0], [0.0, 0.0]]))
    agent.trainer.state = balanced  # so that episodes are long enough to tell members apart
    learner, actor_state = agent.trainer.learner, agent.trainer.actor_state
    names = np.arange(0, 4, dtype=np.int32), np.arange(4, 8, dtype=np.int32)
    whole = collected(agent, env, loop, 8)
    first, second = (collected(agent, env, loop, 4, env_id) for env_id in names)
    np.testing.assert_array_equal(whole.reward, np.concatenate([first.reward, second.reward], axis=1))
    np.testing.assert_array_equal(whole.first, np.concatenate([first.first, second.first], axis=1))
    np.testing.assert_array_equal(second.env_id, names[1])
    assert whole.env_id == ()
    assert not np.array_equal(first.reward, second.reward)

    def actions(env_id, obs):
        acting, timestep = learner.prepare(actor_state, env_id), TimeStep(obs, jnp.zeros(len(obs), bool), env_id)
        return np.asarray(learner.act(acting, (), timestep, jax.random.key(0), explore=True).action)

    for obs in np.asarray(jax.random.normal(jax.random.key(3), (10, 8, 2))):
        halves = [actions(env_id, part) for env_id, part in zip(names, np.split(obs, 2), strict=True)]
        np.testing.assert_array_equal(actions((), obs), np.concatenate(halves))
