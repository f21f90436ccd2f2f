"""The smaller games and tasks by hand: stones, picks, 2048, the tiger, the road."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.envs.builtin.game_2048 import Game2048, Game2048State
from renshu.envs.builtin.one_road import OneRoad, OneRoadState
from renshu.envs.builtin.stone_taking import StoneTaking, StoneTakingState
from renshu.envs.builtin.tiger import Tiger, TigerState
from renshu.envs.builtin.two_picks import TwoPicks
from renshu.envs.device import DeviceEnvs
from renshu.envs.gymnasium.registration import device_env
from renshu.errors import HyperparameterError

KEY = jax.random.key(0)
step = jax.jit(lambda env, state, action, key: env.step(state, action, key), static_argnums=0)


def go(env, state, action, key=KEY):
    return step(env, state, jnp.int32(action), key)


class TestStoneTaking:
    @pytest.mark.parametrize(("stones", "max_stones"), [(10, 3), (9, 3), (13, 4), (11, 4)])
    def test_the_best_play(self, stones, max_stones):
        """Leave the other a remainder of 1: it wins wherever that can be done, and nothing else does."""
        env, rng = StoneTaking(stones, max_stones), np.random.default_rng(0)
        best = int(stones % (max_stones + 1) == 1)  # the seat that wins
        for _ in range(10):
            state, over = env.reset(KEY)[0], False
            while not over:
                left, seat = int(state.stones), int(state.seat)
                take = (left - 1) % (max_stones + 1) if seat == best else rng.integers(1, min(left, max_stones) + 1)
                after = go(env, state, take - 1)
                state, over = after.state, bool(after.terminated)
            assert after.reward.tolist() == [(1, -1)[best], (-1, 1)[best]]

    def test_mask_text_and_picture(self):
        env = StoneTaking()
        state = StoneTakingState(jnp.int32(2), jnp.int32(1))
        assert env.action_mask(state).tolist() == [True, True, False]
        assert [env.action_name(action) for action in range(3)] == ["1", "2", "3"]
        assert env.text(state) == "2: oo\nO to move"
        assert env.text(go(env, state, 1).state) == "0:\nX has won"
        assert env.text(env.reset(KEY)[0]) == "10: oooooooooo\nX to move"
        image = env.render(state)
        assert image.shape == (40, 400, 3)
        assert image[20, 60].tolist() == [110, 115, 125]
        assert image[20, 100].tolist() != [110, 115, 125]
        assert StoneTaking(21).render(state).shape == (120, 400, 3)

    @pytest.mark.parametrize("kwargs", [{"stones": 0}, {"max_stones": 0}, {"stones": 2.5}])
    def test_no_stones_are_refused(self, kwargs):
        with pytest.raises(HyperparameterError, match="1 or more"):
            StoneTaking(**kwargs)


class TestTwoPicks:
    @pytest.mark.parametrize("first", [0, 1])
    @pytest.mark.parametrize("second", [0, 1])
    def test_each_pick_is_paid_at_once(self, first, second):
        env = TwoPicks()
        state, obs = env.reset(KEY)
        assert obs.tolist() == [0, 0]
        one = go(env, state, first)
        assert one.reward.tolist() == [first, -first]
        assert one.obs.tolist() == [1, first]
        assert int(env.to_play(one.state)) == 1
        assert not one.terminated
        two = go(env, one.state, second)
        assert two.reward.tolist() == [-second, second]
        assert two.terminated
        assert [env.text(s) for s in (state, one.state, two.state)] == [". .", f"{first} .", f"{first} {second}"]
        image = env.render(one.state)
        assert image.shape == (80, 160, 3)
        assert image[40, 40].tolist() == [[225, 225, 225], [110, 200, 110]][first]
        assert image[40, 120].tolist() == [250, 248, 240]


def pushed_line(line):
    """Push a line to its beginning, tile by tile."""
    tiles, made, merged = [], 0, False
    for tile in filter(None, line):
        if tiles and tiles[-1] == tile and not merged:
            tiles[-1], merged = tile + 1, True
            made += 2 ** (tile + 1)
        else:
            tiles, merged = [*tiles, tile], False
    return tiles + [0] * (4 - len(tiles)), made


def board(*rows):
    return Game2048State(jnp.array(rows, jnp.int32))


class Test2048:
    ENV = Game2048()

    @pytest.mark.parametrize("side", range(4))
    def test_every_line_is_pushed_as_by_hand(self, side):
        lines = np.array(list(itertools.product(range(5), repeat=4)))
        # Turned to the left by a quarter for each side before it in the order, a side is on the left.
        boards = np.stack([np.rot90(np.stack([line, 0 * line, line[::-1], 0 * line]), -side) for line in lines])
        states = Game2048State(jnp.asarray(boards, jnp.int32))
        one = jax.jit(jax.vmap(lambda state: self.ENV.step(state, jnp.int32(side), KEY)))
        after, mask = jax.tree.map(np.asarray, (one(states), jax.vmap(self.ENV.action_mask)(states)))
        for line, seen, now, made, can in zip(lines, boards, after.state.board, after.reward, mask, strict=True):
            there, back = pushed_line(line.tolist()), pushed_line(line[::-1].tolist())
            want = np.rot90(np.array([there[0], [0] * 4, back[0], [0] * 4]), -side)
            changed = bool((want != seen).any())
            new = now != want
            assert made == there[1] + back[1]
            assert new.sum() == changed
            assert (want[new] == 0).all()
            assert can[side] == changed

    def test_known_pushes(self):
        four = board([1, 1, 1, 1], [2, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 3])
        after = go(self.ENV, four, 0)
        assert after.state.board[0, :2].tolist() == [2, 2]
        assert after.state.board[1, :2].tolist() == [2, 2]  # what has merged does not merge again
        assert after.state.board[3, 0] == 3
        assert after.reward == 4 + 4 + 4
        assert (after.state.board > 0).sum() == 6
        down = go(self.ENV, board([1, 1, 0, 0], [1, 2, 0, 0], [1, 2, 0, 0], [1, 0, 3, 0]), 3)
        assert down.state.board[2:, :3].tolist() == [[2, 1, 0], [2, 3, 3]]
        assert down.reward == 4 + 4 + 8

    def test_a_push_that_changes_nothing(self):
        state = board([1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0])
        assert self.ENV.action_mask(state).tolist() == [False, False, True, True]
        after = go(self.ENV, state, 0)
        assert (after.state.board == state.board).all()
        assert after.reward == 0
        assert not after.terminated

    def test_the_end(self):
        rows = [5, 6, 5, 6], [6, 5, 6, 5], [5, 6, 5, 6]
        after = go(self.ENV, board(*rows, [0, 7, 8, 9]), 0)  # a 2 or a 4 fills the last cell
        assert after.terminated
        assert not self.ENV.action_mask(after.state).any()
        assert not go(self.ENV, board(*rows, [0, 5, 8, 9]), 0).terminated  # a 5 comes under a 5

    def test_tiles_come_anywhere_and_a_four_one_time_in_ten(self):
        state = board([3, 2, 3, 2], [2, 3, 2, 3], [3, 2, 3, 2], [0, 0, 5, 0])
        keys = jax.random.split(jax.random.key(1), 30_000)
        boards = np.asarray(jax.jit(jax.vmap(lambda key: self.ENV.step(state, jnp.int32(0), key).state.board))(keys))
        assert (boards[:, 3, 0] == 5).all()
        tiles = boards[:, 3, 1:]
        assert ((tiles > 0).sum(1) == 1).all()
        assert (tiles > 0).mean(0) == pytest.approx([1 / 3] * 3, abs=0.01)
        assert (tiles.max(1) == 2).mean() == pytest.approx(0.1, abs=0.01)
        first = np.asarray(jax.vmap(lambda key: self.ENV.reset(key)[0].board)(keys[:4000]))
        assert ((first > 0).sum((1, 2)) == 2).all()
        assert (first > 0).mean(0) == pytest.approx(np.full((4, 4), 1 / 8), abs=0.03)
        assert (first == 2).sum() / 8000 == pytest.approx(0.1, abs=0.02)

    def test_the_observation(self):
        state = board([0, 1, 11, 15], [16, 17, 0, 0], [0] * 4, [0] * 4)
        obs = np.asarray(self.ENV._see(state))
        assert (obs.sum(-1) == 1).all()
        assert obs.argmax(-1)[:2].tolist() == [[0, 1, 11, 15], [15, 15, 0, 0]]
        assert self.ENV.observation_space.contains(obs)

    def test_text_picture_and_names(self):
        state = board([0, 1, 2, 0], [0] * 4, [0, 0, 11, 0], [0] * 4)
        rows = ["   .    2    4    .", "   .    .    .    .", "   .    . 2048    .", "   .    .    .    ."]
        assert self.ENV.text(state) == "\n".join(rows)
        assert self.ENV.text(board([17, 1, 0, 0], *[[0] * 4] * 3)).startswith("131072      2      .")
        assert [self.ENV.action_name(i) for i in range(4)] == ["left", "up", "right", "down"]
        image = self.ENV.render(state)
        assert image.shape == (328, 328, 3)
        assert image[12, 12].tolist() == [205, 193, 180]
        assert image[12, 92].tolist() == [238, 228, 218]
        assert image[172, 172].tolist() == [237, 194, 46]
        assert (image[168:240, 168:240] == (249, 246, 242)).all(-1).sum() > 50  # its number
        assert (self.ENV.render(board([17] * 4, *[[0] * 4] * 3)) != image).any()


class TestTiger:
    ENV = Tiger()

    def test_ears_are_right_as_often_as_they_say(self):
        keys = jax.random.split(jax.random.key(2), 20_000)
        states, first = jax.vmap(self.ENV.reset)(keys)
        assert np.mean(states.tiger) == pytest.approx(0.5, abs=0.015)
        assert np.mean(first == states.tiger) == pytest.approx(0.5, abs=0.015)
        after = jax.jit(jax.vmap(lambda state, key: self.ENV.step(state, jnp.int32(0), key)))(states, keys)
        assert np.mean(after.obs == states.tiger) == pytest.approx(0.85, abs=0.01)
        assert not after.terminated.any()
        assert np.unique(after.reward).tolist() == [np.float32(-0.01)]

    @pytest.mark.parametrize("tiger", [0, 1])
    @pytest.mark.parametrize("door", [0, 1])
    def test_doors(self, tiger, door):
        state = TigerState(jnp.int32(tiger), jnp.int32(1 - tiger), jnp.int32(-1))
        after = go(self.ENV, state, 1 + door)
        assert after.terminated
        assert float(after.reward) == np.float32(-1 if door == tiger else 0.1)
        assert int(after.obs) == tiger
        sides = ("left", "right")
        assert self.ENV.text(state) == f"{('T .', '. T')[tiger]}  heard {sides[1 - tiger]}"
        assert self.ENV.text(after.state) == f"{('T .', '. T')[tiger]}  opened {sides[door]}"
        image = self.ENV.render(after.state)
        assert image.shape == (160, 200, 3)
        assert image[105, 50 + 100 * door].tolist() == ([235, 140, 40] if door == tiger else [110, 200, 110])
        assert image[105, 150 - 100 * door].tolist() == [150, 105, 65]

    def test_the_best_policy_earns_what_the_docstring_says(self):
        ahead = np.arange(-15, 16)
        right = 1 / (1 + (0.15 / 0.85) ** ahead)  # probability that the tiger is on the right
        opens = np.maximum(0.1 * right - (1 - right), 0.1 * (1 - right) - right)
        value = opens.copy()
        for _ in range(200):
            hears = 0.85 * right + 0.15 * (1 - right)
            listens = -0.01 + hears * np.append(value[1:], 0.1) + (1 - hears) * np.append(0.1, value[:-1])
            value = np.maximum(opens, listens)
        assert value[15] == pytest.approx(0.052, abs=0.001)
        assert abs(ahead[value == opens]).min() == 3
        assert opens[15] == pytest.approx(-0.45)

        envs = DeviceEnvs(self.ENV, 4000)

        def play(carry, _):
            state, count, running, total = carry
            action = jnp.where(count >= 3, 1, jnp.where(count <= -3, 2, 0))
            state, out = envs.step(state, action)
            total += jnp.where(running, out.reward, 0)
            return (state, count + 2 * out.obs - 1, running & ~out.terminated, total), None

        state, _ = envs.reset(jax.random.key(3))
        start = (state, jnp.zeros(4000, jnp.int32), jnp.ones(4000, bool), jnp.zeros(4000))
        (_, _, running, total), _ = jax.jit(lambda start: jax.lax.scan(play, start, length=49))(start)
        assert not running.any()
        assert float(total.mean()) == pytest.approx(value[15], abs=0.008)

    def test_settings(self):
        assert (self.ENV.max_episode_steps, self.ENV.reward_threshold) == (50, 0.0)
        assert [self.ENV.action_name(action) for action in range(3)] == ["listen", "left", "right"]
        with pytest.raises(HyperparameterError, match=r"0 to 1, not 1\.5"):
            Tiger(prob=1.5)


class TestOneRoad:
    def test_only_one_action_leads_on(self):
        env = OneRoad(length=3, actions=4)
        state, obs = env.reset(KEY)
        assert int(obs) == 0
        for position in (1, 2, 3):
            wrong = go(env, state, position)
            assert wrong.terminated
            assert (int(wrong.obs), float(wrong.reward)) == (position - 1, 0)
            after = go(env, state, 0)
            state = after.state
            assert (int(after.obs), float(after.reward), bool(after.terminated)) == (
                position,
                position == 3,
                position == 3,
            )

    def test_back_to_the_start(self):
        hard = OneRoad(length=20, actions=16, ends=False)
        after = go(hard, OneRoadState(jnp.int32(19)), 15)
        assert (int(after.obs), float(after.reward), bool(after.terminated)) == (0, 0, False)
        assert (hard.action_space.n, hard.observation_space.n) == (16, 21)

    def test_the_time_limit_goes_with_the_length(self):
        assert [OneRoad(length).max_episode_steps for length in (1, 9, 10, 20)] == [1, 9, 11, 22]
        assert device_env("renshu/OneRoad-v0", length=20, max_episode_steps=5).max_episode_steps == 5
        assert device_env("renshu/OneRoad-v0", length=20).max_episode_steps == 22

    def test_text_and_picture(self):
        env = OneRoad(4)
        assert [env.text(OneRoadState(jnp.int32(x))) for x in (0, 2, 4)] == ["P...G", "..P.G", "....P"]
        image = env.render(OneRoadState(jnp.int32(1)))
        assert image.shape == (60, 200, 3)
        assert image[30, 60].tolist() == [50, 90, 200]
        assert image[30, 180].tolist() == [110, 200, 110]

    @pytest.mark.parametrize("kwargs", [{"length": 0}, {"actions": 1}, {"length": 2.5}])
    def test_no_road_is_refused(self, kwargs):
        with pytest.raises(HyperparameterError, match="whole number"):
            OneRoad(**kwargs)
