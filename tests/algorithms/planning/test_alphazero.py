"""AlphaZero: search in the game itself, returns of whoever moves, and what it takes to act, to be saved and shown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import renshu
from renshu import MCTS, AlphaZero, GumbelAlphaZero
from renshu.agent.players import agent_competitor
from renshu.algorithms.planning.alphazero import returns_of_movers
from renshu.algorithms.planning.search import model_step, roots, search
from renshu.arena.exhaustive import never_loses
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.device import DeviceEnv, MaskedDeviceEnv, Step
from renshu.errors import HyperparameterError, SpaceError
from renshu.types import MASK, Rollout, TimeStep

pytest.importorskip("mctx", reason="mctx is not installed")
SMALL = {"num_simulations": 8, "n_blocks": 1, "n_channels": 8, "batch_size": 32, "learning_starts": 64, "train_freq": 8}


@pytest.fixture(scope="module")
def agent():
    """Tiny agent for TicTacToe, hardly trained."""
    return AlphaZero(**SMALL).on("renshu/TicTacToe-v0", num_envs=8, seed=0).learn(400, progress=False)


def after(moves):
    """State and observation of TicTacToe after moves."""
    env = MaskedDeviceEnv(TicTacToe())
    state, obs = env.reset(jax.random.key(0))
    for move in moves:
        done = env.step(state, jnp.int32(move), jax.random.key(1))
        state, obs = done.state, done.obs
    return state, jax.tree.map(np.asarray, obs)


def test_returns_of_movers_against_a_walk_through_the_games():
    rng = np.random.default_rng(0)
    T, N, gamma = 30, 5, 0.9
    first = rng.random((T + 1, N)) < 0.2
    terminated = np.zeros((T, N), bool)
    terminated[:-1] = first[2:] & (rng.random((T - 1, N)) < 0.6)  # others are truncated
    first[:2] = False
    for t in range(1, T + 1):  # a row that only resets is never followed by another
        first[t] &= ~first[t - 1]
    terminated &= np.concatenate([first[2:], np.zeros((1, N), bool)]) & ~first[1:]
    to_play = rng.integers(0, 2, (T + 1, N)).astype(np.int32)
    gain = rng.normal(size=(T, N)).astype(np.float32) * ~first[1:]
    reward = np.stack([gain, -gain], axis=-1)
    value = rng.normal(size=(T + 1, N)).astype(np.float32)
    rollout = Rollout(obs=(), first=first, action=(), reward=reward, terminated=terminated, to_play=to_play)
    found, paid = jax.jit(lambda r, v: returns_of_movers(r, v, gamma))(rollout, value)
    for n in range(N):
        for t in range(T):
            if first[t + 1, n]:
                continue
            seat, total, factor, k = to_play[t, n], 0.0, 1.0, t
            assert paid[t, n] == reward[t, n, seat]
            while True:
                total += factor * reward[k, n, seat]
                factor *= gamma
                if terminated[k, n]:
                    break
                k += 1
                if k == T or first[k + 1, n]:  # beyond the rollout, or truncated: the value there, seen from here
                    total += factor * value[k, n] * (1 if to_play[k, n] == seat else -1)
                    break
            assert found[t, n] == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("kind", ["puct", "gumbel"])
def test_the_search_finds_a_win_and_stops_a_loss(kind):
    # X X .     the player to move is O (to stop), or X (to win), whatever the network thinks.
    # O O .
    fresh = AlphaZero(**{**SMALL, "num_simulations": 64, "search": kind}).on("renshu/TicTacToe-v0", seed=3)
    state, obs = after([0, 3, 1, 4])
    assert fresh.predict(obs, env_state=state) == 2
    state, obs = after([0, 3, 1])
    assert fresh.predict(obs, env_state=state) == 2
    found = fresh.explain(obs, env_state=state)
    assert found["visits"].sum() == 64
    assert np.isneginf(found["action_values"][[0, 1, 3]]).all()
    assert found["search_policy"][[0, 1, 3]].sum() == pytest.approx(0, abs=1e-6)
    assert fresh.explain(obs).keys() == {"probabilities", "value"}


def test_games_that_are_over_are_not_searched_any_further():
    state, obs = after([0, 3, 1, 4])  # X wins at 2: the value is 1 there, with hardly any search
    agent = MCTS(num_simulations=200).on("renshu/TicTacToe-v0", seed=0)
    found = agent.explain(obs, env_state=state)
    assert found["action_values"][2] == 1.0
    assert agent.predict(obs, env_state=state) == 2


def test_without_the_state_of_the_game(agent):
    _, obs = after([0, 3])
    with pytest.raises(SpaceError, match="search=False"):
        agent.predict(obs)
    action = agent.predict(obs, search=False)
    assert action == agent.explain(obs)["probabilities"].argmax()
    with pytest.raises(SpaceError, match="leave it out"):
        renshu.PPO().on("CartPole-v1").predict(np.zeros(4, np.float32), env_state=np.zeros(4))


def test_a_file_brings_it_back_with_its_game(agent, tmp_path):
    again = renshu.load(agent.save(tmp_path / "az.safetensors"))
    assert again.evaluate(20).returns == agent.evaluate(20).returns
    state, obs = after([4])
    assert again.predict(obs, env_state=state) == agent.predict(obs, env_state=state)
    again.learn(100, progress=False)


def test_video_and_terminal(agent, tmp_path, capsys):
    assert agent.record(tmp_path / "game.gif").stat().st_size > 1_000
    agent.watch(terminal=True)
    assert "visits" in capsys.readouterr().out


def test_games_make_no_data_set(agent, tmp_path):
    with pytest.raises(HyperparameterError, match="demonstrations"):
        agent.collect(100, to=tmp_path / "games")


def test_metrics_of_both_seats(agent):
    assert set(agent.recent_info) == {"seat_0", "seat_1"}
    np.testing.assert_array_equal(agent.recent_info["seat_0"], -np.array(agent.recent_info["seat_1"]))


def test_an_environment_without_a_model_is_refused():
    with pytest.raises(SpaceError, match="put it on a DeviceEnv"):
        AlphaZero(**SMALL).on("CartPole-v1")
    with pytest.raises(SpaceError, match="compiled loop"):
        AlphaZero(**SMALL).on("renshu/TicTacToe-v0", loop="host")
    with pytest.raises(HyperparameterError, match="no reward_clipping"):
        AlphaZero(reward_clipping=True).on("renshu/TicTacToe-v0")


def test_it_learns_to_lose_less():
    options = {**SMALL, "num_simulations": 16, "n_channels": 16, "batch_size": 256, "learning_rate": 3e-3}
    agent = GumbelAlphaZero(**options).on("renshu/TicTacToe-v0", num_envs=64, seed=0)
    player = agent_competitor(agent)

    def losses():
        return sum(never_loses(TicTacToe(), player, seat).losses for seat in (0, 1))

    before = losses()
    agent.learn(12_000, progress=False)
    assert losses() < before / 2


def test_a_game_begins_with_as_many_random_moves_as_were_drawn_for_it():
    agent = GumbelAlphaZero(**SMALL, openings=3).on("renshu/TicTacToe-v0", num_envs=256, seed=0)
    learner, env, n = agent.trainer.learner, MaskedDeviceEnv(TicTacToe()), 256
    act, step = jax.jit(learner.act, static_argnames="explore"), jax.jit(jax.vmap(env.step))
    acting, carry = learner.actor_state(agent.trainer.state), learner.initial_carry(n)
    state, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), n))
    lengths, openings = np.zeros(n, int), []
    for move in range(4):
        timestep = TimeStep(obs, np.full(n, move == 0), env_state=state)
        out = act(acting, carry, timestep, jax.random.key(move), explore=True)
        greedy = act(acting, carry, timestep, jax.random.key(move), explore=False)
        assert greedy.extras.keys() == {"policy", "value"}, "an evaluation has openings"
        opening, action = np.asarray(out.extras["opening"]), np.asarray(out.action)
        assert (opening <= (lengths == move)).all(), "an opening goes on once it has ended"
        assert np.take_along_axis(np.asarray(obs[MASK]), action[:, None], 1).all()
        searched = np.asarray(learner.find(acting.params, timestep, jax.random.key(move), True).action)
        np.testing.assert_array_equal(action[~opening], searched[~opening])
        assert not opening.any() or (action == searched)[opening].mean() < 0.5, "search plays the opening"
        openings.append(action[opening])
        lengths, carry = lengths + opening, out.carry
        state, obs, *_ = step(state, out.action, jax.random.split(jax.random.key(9), n))
    assert (np.bincount(lengths, minlength=4) > 256 / 8).all(), "each length is as likely"
    assert (np.bincount(openings[0], minlength=9) > 192 / 27).all(), "each square is as likely"


def test_a_position_of_an_opening_is_worth_what_search_found():
    agent = GumbelAlphaZero(**SMALL, openings=9).on("renshu/TicTacToe-v0", num_envs=64, seed=0)
    agent.learn(512, progress=False)
    ring = agent.trainer.state.memory.ring
    opening, value = (np.asarray(ring.extras[name])[:8] for name in ("opening", "value"))
    assert 0.2 < opening.mean() < 0.8
    decided = np.abs(value) == 1  # a search's mean of eight positions is hardly ever
    assert decided[~opening].mean() > 0.4 > 0.05 > decided[opening].mean()


@pytest.mark.parametrize("kind", ["puct", "gumbel"])
def test_what_is_cut_off_keeps_its_value_however_often_it_is_looked_at(kind):
    class Cut(DeviceEnv):
        """One step, after which nothing is decided."""

        observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)

        def reset(self, key):
            return jnp.float32(0.0), jnp.zeros(1)

        def step(self, state, action, key):
            return Step(state, jnp.zeros(1), jnp.float32(0.0), jnp.bool_(False), jnp.bool_(True))

    def judged(params, key, obs, node):
        return jnp.zeros((len(node.ended), 2)), jnp.ones(len(node.ended))

    options = {"dirichlet_alpha": 0.3, "dirichlet_fraction": 0.25, "temperature": 1.0, "c_init": 1.25, "considered": 2}
    found = search(
        kind,
        {},
        jax.random.key(0),
        jnp.zeros((3, 2)),
        jnp.ones(3),
        roots(jnp.zeros(3), 3),
        model_step(Cut(), judged, 1.0),
        simulations=16,
        mask=None,
        explore=False,
        **options,
    )
    np.testing.assert_allclose(found.values, 1.0)
