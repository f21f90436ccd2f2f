"""Seats of a game: a step is the learner's move and the replies, and everyone is paid for the seat they sit in."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu import PPO
from renshu.agent.summary import describe
from renshu.envs.builtin.connect_four import ConnectFour
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.builtin.two_picks import TwoPicks
from renshu.envs.device import DeviceEnvs, MaskedDeviceEnv
from renshu.envs.games import Game
from renshu.envs.players import Player
from renshu.envs.seats import Seated
from renshu.errors import SpaceError

pytestmark = pytest.mark.usefixtures("compiled_fast")
WINS = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


def play(env, choose, games=64, steps=5, seed=0):
    """Games side by side: seats, moves and rewards of the learner, and which moves counted, each [games, steps]."""

    def one(key):
        state, obs = env.reset(key)

        def move(carry, t):
            state, obs, over = carry
            key_t = jax.random.fold_in(key, t)
            after = env.step(state, choose(key_t, obs, env.action_mask(state)), key_t)
            return (after.state, after.obs, over | after.terminated), (after.reward, over, after.info, obs)

        _, rows = jax.lax.scan(move, (state, obs, jnp.bool_(False)), jnp.arange(steps))
        return state.seat, rows

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), games)))


def lowest(key, obs, legal):
    return jnp.argmax(legal).astype(jnp.int32)


def at_random(key, obs, legal):
    return jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))


def followed(seat):
    """The result for `seat` where both sides take the lowest free square, by rules of this test's own."""
    board, mover = [-1] * 9, 0
    for square in range(9):
        board[square] = mover
        if any(all(board[i] == mover for i in line) for line in WINS):
            return 1.0 if mover == seat else -1.0
        mover = 1 - mover
    return 0.0


def test_the_reward_is_that_of_the_seat():
    seats, (reward, over, info, _) = play(Seated(TicTacToe(), lowest), lowest)
    assert set(seats) == {0, 1}
    totals = np.where(over, 0, reward).sum(axis=1)
    np.testing.assert_array_equal(totals, [followed(seat) for seat in seats])
    last = (~over).sum(axis=1) - 1
    for seat in (0, 1):
        known = info[f"seat_{seat}"][np.arange(len(seats)), last]
        np.testing.assert_array_equal(np.isnan(known), seats != seat)
        np.testing.assert_array_equal(known[seats == seat], totals[seats == seat])


def test_what_is_paid_before_the_first_move_is_not_lost():
    env = Seated(TwoPicks(), lambda key, obs, legal: 1)
    seats, (reward, _, _, _) = play(env, lambda key, obs, legal: 0, steps=1)
    # In either seat the other picks 1, and the learner nothing: as second it was charged before its first move.
    assert set(seats) == {0, 1}
    np.testing.assert_array_equal(reward[:, 0], -1.0)


def test_a_seat_of_ones_own():
    seats, _ = play(Seated(TicTacToe(), seat=1), at_random)
    assert set(seats) == {1}


def test_an_opponent_remembers_within_a_game_and_no_longer():
    class Counting(Player):
        """Puts its n-th stone of a game into column n: it must count its own moves, from 0 in each game."""

        name = "counting"

        def begin(self, key):
            return jnp.int32(0)

        def move(self, memory, sight, key):
            right = sight.first == (memory == 0)
            return jnp.where(right, memory, 6), memory + 1

    env = MaskedDeviceEnv(Seated(ConnectFour(), Counting(), seat=0))
    unmasked = env.env

    def last_column(key, obs, legal):
        return jnp.where(legal[6], 6, 5)

    _, (_, over, _, obs) = play(unmasked, last_column, games=4, steps=4)
    assert not over.any()
    # After n replies the opponent's stones lie in the columns 0 to n - 1 of the lowest row, one each.
    for n in range(1, 4):
        theirs = obs[0, n][..., 1]
        assert theirs.sum() == n
        np.testing.assert_array_equal(theirs.sum(axis=0)[:n], 1)


def test_bad_opponents_are_named():
    with pytest.raises(SpaceError, match="no opponent"):
        Seated(TicTacToe(), 3)
    with pytest.raises(SpaceError, match="seats 0 to 1"):
        Seated(TicTacToe(), seat=2)
    with pytest.raises(SpaceError, match="no game of several players"):
        PPO().on("CartPole-v1", opponent="random")
    with pytest.raises(SpaceError, match="no game of several players"):
        PPO().on("renshu/CartPole-v1", opponent="random")
    with pytest.raises(SpaceError, match="has the opponent 'random' already"):
        PPO().on(Seated(TicTacToe()), opponent="self")


def test_gymnasium_seats_an_opponent_by_itself():
    import gymnasium

    env = gymnasium.make("renshu/TicTacToe-v0", render_mode="ansi")
    _, info = env.reset(seed=0)
    total, done = 0.0, False
    while not done:
        _, reward, done, _, info = env.step(int(np.flatnonzero(info["action_mask"])[0]))
        total += reward
    assert total in (-1.0, 0.0, 1.0)


def test_a_learner_for_one_seat_learns_in_both_loops_and_comes_back_from_a_file(tmp_path):
    import renshu

    for loop in ("compiled", "host"):
        small = {"n_steps": 16, "batch_size": 32, "n_epochs": 4, "net_arch": [16], "learning_rate": 3e-3}
        agent = PPO(**small).on("renshu/TwoPicks-v0", num_envs=8, seed=0, loop=loop)
        agent.learn(1_500, progress=False)
        assert agent.spec.kwargs == {"opponent": "random"}
        assert agent.evaluate(200).mean > 0.3  # it picks 1, which pays 1; the other does so in half of the games
        again = renshu.load(agent.save(tmp_path / f"{loop}.safetensors"))
        assert again.evaluate(20).returns == agent.evaluate(20).returns


def test_an_evaluation_with_another_opponent_keeps_the_game_and_its_limit():
    from renshu.envs.builtin.stone_taking import StoneTaking

    def takes_one(key, obs, legal):
        return 0

    kwargs = {"stones": 9, "max_stones": 2}
    small = {"n_steps": 8, "batch_size": 16, "net_arch": [8]}
    for env, options in (("renshu/StoneTaking-v0", {"env_kwargs": kwargs}), (StoneTaking(9, 2), {})):
        agent = PPO(**small).on(env, num_envs=2, seed=0, max_episode_steps=5, **options)
        assert agent.spec.kwargs == {**kwargs, "max_episode_steps": 5, "opponent": "random"}
        found = agent.evaluate(10, opponent=takes_one)
        assert max(found.lengths) == 3  # of five moves
        assert agent.evaluate(10, opponent="random").lengths == agent.evaluate(10).lengths


def test_a_file_tells_the_opponent_or_that_it_is_missing(tmp_path):
    import renshu
    from renshu.envs.builtin.stone_taking import StoneTaking

    small = {"n_steps": 8, "batch_size": 16, "net_arch": [8]}
    with_self = PPO(**small).on(StoneTaking(9, 2), num_envs=2, seed=0, opponent="self")
    again = renshu.load(with_self.save(tmp_path / "self.safetensors"))
    assert again.trainer.backend.spec().kwargs == {"stones": 9, "max_stones": 2, "opponent": "self"}
    assert "opponent         self" in describe(with_self.trainer)
    agent = PPO(**small).on("renshu/StoneTaking-v0", num_envs=2, seed=0, opponent=lowest)
    assert agent.spec.id == "renshu/StoneTaking-v0"
    assert "opponent         lowest" in describe(agent.trainer)
    path = agent.save(tmp_path / "lowest.safetensors")
    alone = renshu.load(path)
    with pytest.warns(UserWarning, match="does not hold the opponent"):
        alone.evaluate(2)
    with pytest.warns(UserWarning, match="does not hold the opponent"):
        renshu.load(path, env=StoneTaking())


class Endless(Game):
    """Nobody wins; both move in turn."""

    players = 2
    observation_space, action_space = gymnasium.spaces.MultiBinary(1), gymnasium.spaces.Discrete(2)
    max_episode_steps = 7

    def begin(self, key):
        return jnp.int32(0)

    def move(self, state, action, key):
        return state + 1, jnp.zeros(2), jnp.bool_(False)

    def observe(self, state):
        return jnp.zeros(1, jnp.int8)

    def to_play(self, state):
        return state % 2

    def action_mask(self, state):
        return jnp.ones(2, jnp.bool_)


def test_a_limit_counts_moves_of_all_and_cuts_off():
    envs = DeviceEnvs(Seated(Endless()), 8)
    state, _ = envs.reset(jax.random.key(0))
    first = np.asarray(state.inner.seat) == 0
    for number in range(1, 5):
        state, out = jax.jit(envs.step)(state, jnp.zeros(8, jnp.int32))
        # Seven moves: the fourth of whoever is first, the third of the other, to which a reply is the seventh.
        np.testing.assert_array_equal(out.truncated, (number == 4) & first | (number == 3) & ~first)
        assert not out.terminated.any(), "nobody has won"


@pytest.mark.parametrize("game", [TicTacToe(), TwoPicks()], ids=lambda game: game.name)
def test_a_step_that_begins_games_too_is_the_same_as_both_apart(game):
    class Apart(Seated):
        renews = False

    found = []
    for kind in (Seated, Apart):
        envs = DeviceEnvs(MaskedDeviceEnv(kind(game)), 16)
        state, obs = envs.reset(jax.random.key(0))
        step, rows = jax.jit(envs.step), []
        for _ in range(12):
            action = jnp.argmax(obs["action_mask"], axis=1)
            state, out = step(state, action)
            obs = out.obs
            seen = ~np.isnan(out.info["seat_0"]) & (out.terminated | out.truncated)
            rows.append((obs, out.reward, out.terminated, out.truncated, np.where(seen, out.info["seat_0"], 0)))
        found.append((rows, state))
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = map(jax.random.key_data, (a, b))
        np.testing.assert_array_equal(a, b)
