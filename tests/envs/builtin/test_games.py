"""Rules of the built-in games beside other versions of them, and what every game has in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench import rules
from renshu.envs.builtin.connect_four import ConnectFour
from renshu.envs.builtin.game_2048 import Game2048
from renshu.envs.builtin.one_road import OneRoad
from renshu.envs.builtin.othello import Othello
from renshu.envs.builtin.stone_taking import StoneTaking
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.builtin.tiger import Tiger
from renshu.envs.builtin.two_picks import TwoPicks
from renshu.envs.device import DeviceEnvs

GAMES = [TicTacToe(), ConnectFour(), Othello(), Othello(6), Othello(4), StoneTaking(), TwoPicks()]
ALONE = [Game2048(), Tiger(), OneRoad()]
KEY = jax.random.key(0)


def label(env):
    return f"{type(env).__name__}{getattr(env, 'size', '')}"


@pytest.mark.parametrize(
    ("env", "name", "steps"),
    [(TicTacToe(), "tic_tac_toe", 9), (ConnectFour(), "connect_four", 42), (Othello(), "othello", 80)],
    ids=["TicTacToe", "ConnectFour", "Othello8"],
)
def test_rules_beside_pgx(env, name, steps):
    pytest.importorskip("pgx")
    found = rules.beside_pgx(env, name, 300, steps)
    assert found.positions > 2000
    assert found.differences == 0


def test_2048_beside_pgx():
    pytest.importorskip("pgx")
    found = rules.beside_pgx_2048(Game2048(), 100, 600)
    assert found.positions > 8000
    assert found.differences == 0


@pytest.mark.parametrize(
    ("env", "make", "games", "steps"),
    [
        (TicTacToe(), lambda: rules.InARow(3, 3, 3, fall=False), 300, 9),
        (ConnectFour(), lambda: rules.InARow(6, 7, 4, fall=True), 200, 42),
        (Othello(), rules.Othello, 40, 80),
        (Othello(6), lambda: rules.Othello(6), 150, 50),
        (Othello(4), lambda: rules.Othello(4), 300, 20),
        (StoneTaking(), rules.StoneTaking, 300, 10),
        (StoneTaking(21, 4), lambda: rules.StoneTaking(21, 4), 300, 21),
        (TwoPicks(), rules.TwoPicks, 100, 2),
        (OneRoad(), rules.OneRoad, 300, 10),
        (OneRoad(4, 3, False), lambda: rules.OneRoad(4, 3, False), 50, 2000),
    ],
    ids=lambda value: label(value) if hasattr(value, "action_space") else "",
)
def test_rules_beside_a_second_version(env, make, games, steps):
    found = rules.beside_rules(env, make, games, steps)
    assert found.games == games
    assert found.differences == 0


def test_the_tiger_beside_its_rules():
    assert rules.beside_tiger(Tiger(), 300, 50).differences == 0


def test_a_wrong_rule_is_found():
    class Wrong(ConnectFour):
        def move(self, state, action, key):
            after, reward, over = super().move(state, action, key)
            edge = (after.other[6] & 0b1111) == 0b1111  # four upright at the right edge
            return after, jnp.where(edge, 0, reward), over & ~edge

    found = rules.beside_rules(Wrong(), lambda: rules.InARow(6, 7, 4, fall=True), 300, 42)
    assert 0 < found.differences < 100


@pytest.mark.parametrize("env", GAMES, ids=label)
def test_an_action_that_is_not_allowed_loses_at_once(env):
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    mask = jax.jit(env.action_mask)
    state, obs = reset(KEY)
    for moves in range(12):
        allowed = np.asarray(mask(state))
        if not allowed.all():
            after = step(state, jnp.int32(np.argmin(allowed)), KEY)
            seat = int(env.to_play(state))
            assert after.terminated
            assert after.reward.tolist() == [(-1.0, 1.0)[seat], (1.0, -1.0)[seat]]
            assert (after.obs == obs).all()
            assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after.state, state))
        done = step(state, jnp.int32(np.flatnonzero(allowed)[moves % allowed.sum()]), KEY)
        if done.terminated:
            break
        state, obs = done.state, done.obs


@pytest.mark.parametrize("env", GAMES, ids=label)
def test_what_games_return(env):
    ours = rules.played(env, 50, 80)
    assert ours.obs.dtype == (np.int32 if isinstance(env, StoneTaking) else env.observation_space.dtype)
    assert ours.reward.dtype == np.float32
    assert ours.reward.shape == (80, 50, 2)
    assert ours.mask.dtype == np.bool_
    assert ours.seat.dtype == np.int32
    assert ours.seat[0].tolist() == [0] * 50
    reward = ours.reward[ours.active]
    assert not np.signbit(reward[reward == 0]).any()
    assert (reward.sum(-1) == 0).all()
    assert isinstance(env, TwoPicks) or (ours.reward[~ours.over] == 0).all()
    for t in range(0, 80, 7):
        assert env.observation_space.contains(ours.obs[t, 0])


@pytest.mark.parametrize("env", [*GAMES, *ALONE], ids=label)
def test_they_run_without_end(env):
    envs = DeviceEnvs(env, 8)

    def step(state, key):
        mask = jax.vmap(env.action_mask)(state.inner) if env.gives_masks else jnp.ones((8, int(env.action_space.n)))
        state, out = envs.step(state, rules.at_random(mask != 0, jax.random.bits(key, (8,))))
        return state, (out.reward, out.terminated)

    state, _ = envs.reset(KEY)
    _, (reward, ended) = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))(state, jax.random.split(KEY, 400))
    assert np.isfinite(reward).all()
    assert ended.any(0).all()


@pytest.mark.parametrize("env", [*GAMES, *ALONE], ids=label)
def test_pictures_texts_and_names(env):
    state, _ = env.reset(KEY)
    mask = np.asarray(env.action_mask(state)) if env.gives_masks else np.ones(int(env.action_space.n), bool)
    after = jax.jit(env.step)(state, jnp.int32(np.argmax(mask)), KEY).state
    first, second = (env.render(jax.device_get(one)) for one in (state, after))
    assert first.dtype == np.uint8
    assert first.shape == second.shape
    assert first.shape[2] == 3
    assert not any(side % 2 for side in first.shape[:2]), "videos want even sides"
    assert isinstance(env, TwoPicks | Tiger) or (first != second).any()
    assert "\n".join(line.rstrip() for line in env.text(state).split("\n")) == env.text(state)
    names = [env.action_name(action) for action in range(int(env.action_space.n))]
    assert len(set(names)) == len(names)
