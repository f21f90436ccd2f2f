"""MuZero and its kin: targets by hand, gradients, search in models made by hand, options, and learning."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu import PPO, GumbelMuZero, MuZero, SampledMuZero, StochasticMuZero
from renshu.algorithms.planning import muzero
from renshu.algorithms.planning.imagination import Imagination
from renshu.algorithms.planning.muzero import MuZeroLearner
from renshu.algorithms.planning.stochastic_muzero import StochasticImagination
from renshu.algorithms.planning.targets import unroll_targets
from renshu.algorithms.planning.unrolling import over_steps
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import HyperparameterError, SpaceError
from renshu.ops.categorical import cross_entropy, two_hot
from renshu.replay.ring import Index
from renshu.replay.sequences import Sequences
from renshu.types import EnvSpec, Rollout

pytest.importorskip("mctx", reason="mctx is not installed")
pytestmark = pytest.mark.usefixtures("compiled_fast")
SMALL = {
    "num_simulations": 8,
    "latent": 16,
    "net_arch": (16,),
    "n_blocks": 0,
    "n_channels": 4,
    "support": 5,
    "batch_size": 32,
    "buffer_size": 4_000,
    "learning_starts": 64,
    "train_freq": 8,
    "num_unroll_steps": 3,
    "n_steps": 2,
    "gamma": 0.9,
}
EFFICIENT = {"consistency_coef": 2.0, "value_prefix": True, "reanalyse": 0.5, "search_value": True}


class Road(DeviceEnv):
    """Four steps, each to the side that a new sign shows; a wrong one ends the episode. 1 is paid at the end alone."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    length = 4

    def reset(self, key):
        state = jnp.int32(0), jax.random.bernoulli(key)
        return state, self.see(state)

    def see(self, state):
        return jnp.stack([state[0] / self.length, 2.0 * state[1] - 1.0]).astype(jnp.float32)

    def step(self, state, action, key):
        right = action == state[1]
        after = state[0] + right, jax.random.bernoulli(key)
        done = after[0] == self.length
        return Step(after, self.see(after), (right & done).astype(jnp.float32), ~right | done)


class Picture(Road):
    """The same road as an image: the sign is on the left or on the right."""

    observation_space = spaces.Box(0, 255, (10, 10, 1), np.uint8)
    length = 2

    def see(self, state):
        columns = (jnp.arange(10) < 5) == state[1]
        return jnp.broadcast_to(255 * columns[:, None], (10, 10, 1)).astype(jnp.uint8)


class Aim(DeviceEnv):
    """One step; the nearer the action to half the observation the better. Actions go from -2 to 2."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, key):
        state = jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)
        return state, state

    def step(self, state, action, key):
        return Step(state, state, -jnp.abs(action - 0.5 * state).mean(), jnp.bool_(True))


def spec_of(players=1, actions=2):
    return EnvSpec(spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(actions), 2, players=players)


@pytest.fixture(scope="module")
def learner():
    return MuZero(**SMALL).build(spec_of())


def sequence(reward, terminated, first):
    """Rollout of one environment."""
    columns = (np.asarray(x)[:, None] for x in (reward, terminated, first))
    reward, terminated, first = columns
    return Rollout(
        obs=(),
        first=first.astype(bool),
        action=(),
        reward=reward.astype(np.float32),
        terminated=terminated.astype(bool),
    )


# --- targets ----------------------------------------------------------------------------------------------------------


def targets_of(reward, terminated, first, gamma=0.5, steps=4):
    value = np.full((steps + 3, 1), 10.0, np.float32)
    found = jax.jit(lambda r: unroll_targets(r, value, gamma, 2, steps))(sequence(reward, terminated, first))
    return [np.asarray(x)[:, 0] for x in found]


def test_targets_across_the_end_of_an_episode():
    # Steps 0 to 2, the last of which ends it; step 3 resets. Two rewards, then the value, which is 10 everywhere.
    value, reward, going, over = targets_of([1, 2, 3, 7, 5, 6], [0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0])
    np.testing.assert_allclose(value, [1 + 0.5 * 2 + 0.25 * 10, 2 + 0.5 * 3, 3, 0, 0])
    np.testing.assert_allclose(reward, [1, 2, 3, 0])
    np.testing.assert_array_equal(going, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(over, [0, 0, 0, 1, 1])


def test_targets_across_a_truncation():
    value, reward, going, over = targets_of([1, 2, 3, 7, 5, 6], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0])
    np.testing.assert_allclose(value[:3], [4.5, 2 + 0.5 * 3 + 0.25 * 10, 3 + 0.5 * 10])
    np.testing.assert_allclose(reward[:3], [1, 2, 3])
    np.testing.assert_array_equal(going, [1, 1, 1, 0, 0])
    assert not over.any(), "nothing is known beyond"


def test_targets_where_nothing_ends_and_where_a_sequence_begins_after_the_end():
    value, reward, going, over = targets_of([1, 2, 3, 4, 5, 6], [0] * 6, [0] * 7)
    np.testing.assert_allclose(value, [r + 0.5 * (r + 1) + 2.5 for r in (1, 2, 3, 4, 5)])
    np.testing.assert_allclose(reward, [1, 2, 3, 4])
    assert going.all()
    assert not over.any()
    *_, going, over = targets_of([0, 2, 3, 4, 5, 6], [0] * 6, [0, 1, 0, 0, 0, 0, 0])
    assert not going.any()
    assert not over.any()


def test_values_of_the_other_player_count_against():
    turns = np.array([[0.5, -0.5, -0.5, 0.5, -0.5, -0.5]]).T.astype(np.float32)  # after step 0 one moves again
    value = targets_of([1, 2, 3, 4, 5, 6], [0] * 6, [0] * 7, gamma=turns)[0]
    np.testing.assert_allclose(
        value, [1 + 0.5 * (2 - 0.5 * 10), 2 - 0.5 * (3 - 5), 3 - 0.5 * (4 + 5), 4 + 0.5 * (5 - 5), 5 - 0.5 * (6 - 5)]
    )
    learner = MuZero(**SMALL).build(spec_of(players=2))
    rollout = sequence([0] * 4, [0] * 4, [0] * 5)._replace(extras={"to_play": jnp.array([[0], [0], [1], [0]])})
    np.testing.assert_allclose(learner.discounts(rollout)[:, 0], [0.9, -0.9, -0.9])


def begun(learner):
    """Train state before anything is learned."""
    return jax.jit(learner.init_train)(jax.random.key(0))


def lesson_of(learner, rollout):
    train = begun(learner)
    return jax.jit(learner.lesson)(train, rollout, jax.random.key(0)), train


def unrolled(learner, params, lesson):
    """Outputs of the model, and what they cost."""

    def both(params, lesson):
        out = learner.unroll(params, lesson, jax.random.key(2))
        return out, learner.losses(params, out, lesson)

    return jax.jit(both)(params, lesson)


def rows(learner, terminated=(), resets=(), reward=1.0):
    """Sequence of one environment for a learner, as its memory gives it."""
    T = learner.replay.sequence_length
    rollout = sequence([reward] * T, np.isin(np.arange(T), terminated), np.isin(np.arange(T + 1), resets))
    policy = np.broadcast_to(np.array([0.25, 0.75], np.float32), (T, 1, 2))
    return rollout._replace(
        obs=np.linspace(-1, 1, T + 1, dtype=np.float32)[:, None, None],
        action=np.zeros((T, 1), np.int32),
        extras={"policy": policy, "value": np.arange(T, dtype=np.float32)[:, None]},
    )


def test_beyond_the_end_actions_are_random_and_policies_are_not_learned(learner):
    rollout = rows(learner, terminated=[0], resets=[2])
    lesson, train = lesson_of(learner, jax.tree.map(lambda x: np.repeat(x, 20, axis=1), rollout))
    assert not lesson.action[0].any()
    assert set(np.asarray(lesson.action[1:]).reshape(-1)) == {0, 1}
    _, parts = unrolled(learner, train.params, lesson)
    where = {name: np.asarray(part[2])[:, 0] for name, part in parts.items()}
    np.testing.assert_array_equal(where["policy_loss"], [1, 0, 0, 0])
    np.testing.assert_array_equal(where["value_loss"], [1, 1, 1, 1])
    np.testing.assert_array_equal(where["reward_loss"], [1, 1, 1])


def test_values_are_those_of_the_target_network_or_of_the_search_when_it_was_made(learner):
    rollout = rows(learner)
    np.testing.assert_allclose(lesson_of(learner, rollout)[0].targets.value[:, 0], [1.9] * 4, atol=1e-4)  # it knows 0
    found = MuZero(**SMALL, target_update_interval=None).build(spec_of())
    value = lesson_of(found, rollout)[0].targets.value[:, 0]
    np.testing.assert_allclose(value, [1.9 + 0.81 * (k + 2) for k in range(4)], rtol=1e-5)


def test_a_sequence_of_resets_teaches_nothing_and_gets_no_priority(learner):
    step, nothing, something = jax.jit(learner.gradient_step), rows(learner, resets=[1]), rows(learner)
    both = jax.tree.map(lambda a, b: np.concatenate([a, b], axis=1), nothing, something)
    for weight, share in (np.array([1.0, 0.5], np.float32), 0.5), (np.array([1.0, 0.0], np.float32), 0.0):
        batch = Sequences(both, weight, Index(jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int32)))
        _, metrics, error = step(begun(learner), batch, jax.random.key(0), jnp.float32(1e-3))
        np.testing.assert_allclose(error, [0.0, 1.9], atol=1e-4)
        assert metrics["reward_loss"] == pytest.approx(share * np.log(11) / 2, rel=1e-5)


# --- gradients --------------------------------------------------------------------------------------------------------


def test_unrolled_steps_share_the_weight_of_one():
    where, weight = np.ones((4, 2), bool), np.array([1.0, 0.5])
    assert over_steps(np.ones((4, 2)), where, weight, 3) == pytest.approx(2 * 0.75)
    assert over_steps(np.ones((3, 2)), where[1:], weight, 3) == pytest.approx(0.75)
    where[2:, 0] = False
    assert over_steps(np.ones((4, 2)), where, weight, 3) == pytest.approx((1 + 1 / 3 + 0.5 * 2) / 2)


def test_gradients_halve_at_the_start_of_each_unrolled_step(learner, monkeypatch):
    lesson, train = lesson_of(learner, rows(learner))

    @partial(jax.jit, static_argnums=(0, 1))
    def gradients(k, halving):
        def of(params):
            latent = learner.unroll(params, lesson, jax.random.key(0)).latent[k]
            return (latent * jnp.arange(latent.size).reshape(latent.shape)).sum()

        return jax.grad(of)(train.params)["model"]["representation"]

    halved = [gradients(k, True) for k in range(3)]
    monkeypatch.setattr(muzero, "halved", lambda x: x)
    for k, ours in enumerate(halved):
        whole = gradients(k, False)
        assert max(np.abs(x).max() for x in jax.tree.leaves(whole)) > 1e-3
        jax.tree.map(lambda a, b, k=k: np.testing.assert_allclose(a, 0.5**k * b, rtol=1e-3, atol=1e-5), ours, whole)


# --- search in models made by hand ------------------------------------------------------------------------------------


class ByHand:
    """Latents `[B, 1]` are the number of the state; `next_state`, `reward`, `value` are tables."""

    next_state = np.array([[1, 2], [3, 3], [3, 3], [3, 3]])
    reward = np.array([[0.0, -0.1], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    value = np.zeros(4)

    def run(self, params, part, *args):
        squashed = lambda x: jnp.log(two_hot(jnp.asarray(x, jnp.float32), 5) + 1e-9)  # noqa: E731
        if part == "represent":
            return args[0]
        state = args[0][:, 0].astype(jnp.int32)
        if part == "predict":
            return jnp.zeros((len(state), 2)), squashed(jnp.asarray(self.value)[state])
        action = args[1].argmax(axis=1)
        after = jnp.asarray(self.next_state)[state, action][:, None].astype(jnp.float32)
        return after, (), squashed(jnp.asarray(self.reward)[state, action])


class InModel(ByHand, Imagination):
    """Search in that model."""


def search(kind, config, obs=((0.0,),), players=1, explore=False):
    spec = spec_of(players)
    found = kind(config, spec, config.build(spec).model).find({}, jnp.asarray(obs), jax.random.key(0), explore).found
    return jax.tree.map(lambda x: np.asarray(x)[0], found)


@pytest.mark.parametrize("kind", [MuZero, GumbelMuZero])
def test_search_gives_up_a_little_for_more(kind):
    found = search(InModel, kind(**SMALL | {"num_simulations": 32}))
    assert found.action == 1
    assert found.policy[1] > 0.55
    np.testing.assert_allclose(found.values, [0.0, -0.1 + 0.9], atol=0.15)
    assert found.visits.sum() == 32


def test_of_two_players_one_fears_the_gain_of_the_other():
    # Action 0 leads to a state in which the other is paid 1; action 1 costs a little, and nobody is paid after.
    class Game(InModel):
        next_state = np.array([[2, 1], [3, 3], [3, 3], [3, 3]])

    for kind in (MuZero, GumbelMuZero):
        assert search(Game, kind(**SMALL | {"num_simulations": 32})).action == 0
        found = search(Game, kind(**SMALL | {"num_simulations": 32}), players=2)
        assert found.action == 1
        assert -0.9 <= found.values[0] < -0.4
        assert found.values[1] == pytest.approx(-0.1, abs=0.02)


def test_search_weighs_what_chance_may_bring():
    # Action 0 pays 0.4. Action 1 pays 1 or 0, with three chances in five of 1.
    class Lottery(StochasticImagination):
        def run(self, params, part, *args):
            squashed = lambda x: jnp.log(two_hot(x, 5) + 1e-9)  # noqa: E731
            x = args[0]
            if part == "represent":
                return x
            if part == "predict":
                return jnp.zeros((len(x), 2)), squashed(jnp.zeros(len(x)))
            if part == "act":  # states are 0 before and 9 after
                return jnp.where(x[:, :1] == 0, args[1].argmax(axis=1)[:, None] + 1.0, 9.0)
            if part == "foresee":
                chances = jnp.log(jnp.array([[0.6, 0.4]]))
                return jnp.broadcast_to(chances, (len(x), 2)), squashed(jnp.zeros(len(x)))
            luck = jnp.where(args[1][:, 0] > 0, 1.0, 0.0)
            paid = jnp.where(x[:, 0] == 1, 0.4, jnp.where(x[:, 0] == 2, luck, 0.0))
            return jnp.full((len(x), 1), 9.0), squashed(paid)

    config = StochasticMuZero(**SMALL | {"num_simulations": 400}, num_codes=2)
    found = search(Lottery, config)
    assert found.action == 1
    np.testing.assert_allclose(found.values, [0.4, 0.6], atol=0.05)


def test_masks_count_at_the_root_alone(monkeypatch):
    seen = []

    class Masked(InModel):
        def offered(self, policy, mask, key, explore=False):
            seen.append(mask is None)
            return super().offered(policy, mask, key, explore)

        def split(self, obs):
            return obs, jnp.array([[True, False]])

    for kind in (MuZero, GumbelMuZero):
        for explore in (False, True):
            found = search(Masked, kind(**SMALL), explore=explore)
            assert (found.action, found.policy[1], found.visits[1]) == (0, 0.0, 0)
    assert seen[0] is False
    assert True in seen


# --- options ----------------------------------------------------------------------------------------------------------


def test_rewards_summed_up(learner):
    config = dataclasses.replace(learner.config, value_prefix=True)
    prefixed = MuZeroLearner(config, spec_of())
    rollout = rows(prefixed, reward=0.5)
    lesson, train = lesson_of(prefixed, rollout)
    out, parts = unrolled(prefixed, train.params, lesson)
    sums = two_hot(jnp.array([[0.5], [1.0], [1.5]]), 5)
    np.testing.assert_allclose(parts["reward_loss"][1], np.log(11), rtol=1e-5)  # of a network that knows nothing
    told = out._replace(reward=jnp.log(sums + 1e-9))
    loss = prefixed.losses(train.params, told, lesson)["reward_loss"][1]
    np.testing.assert_allclose(loss, cross_entropy(told.reward, sums), rtol=1e-5)
    single = learner.losses(train.params, told, lesson)["reward_loss"][1]
    assert (np.abs(single - loss)[:, 0] > 0.05).tolist() == [False, True, True]
    # In search a reward is the difference of two sums.
    node = prefixed.imagination.root(train.params, jnp.zeros((1, 1)))
    node = node._replace(prefix=node.prefix._replace(total=jnp.array([2.0]), steps=jnp.array([1])))
    after, reward, _ = prefixed.imagination.advance(train.params, node, jnp.array([0]))
    assert reward == pytest.approx(-2.0, abs=1e-4)
    assert after.prefix.steps == 2
    anew = node._replace(prefix=node.prefix._replace(steps=jnp.array([3])))  # as long as it is unrolled in learning
    _, reward, _ = prefixed.imagination.advance(train.params, anew, jnp.array([0]))
    assert reward == pytest.approx(0.0, abs=1e-4)


def test_self_supervision_compares_what_was_imagined_with_what_was_seen(learner):
    config = dataclasses.replace(learner.config, consistency_coef=2.0)
    supervised = MuZeroLearner(config, spec_of())
    rollout = rows(supervised, terminated=[1], resets=[3])
    lesson, train = lesson_of(supervised, rollout)
    out, parts = unrolled(supervised, train.params, lesson)
    weight, loss, where = parts["consistency_loss"]
    assert weight == 2.0
    assert loss.shape == (3, 1)
    assert (np.abs(loss) <= 1 + 1e-5).all()
    np.testing.assert_array_equal(np.asarray(where)[:, 0], [1, 1, 0])

    def dissimilar(params):
        return supervised.dissimilarity(params, jax.lax.stop_gradient(out.latent[1:]), lesson.seen[1:4]).sum()

    gradient = jax.jit(jax.grad(dissimilar))(train.params)["model"]
    assert not any(np.any(x) for x in jax.tree.leaves(gradient["representation"])), "the other branch stands still"
    assert any(np.any(x) for x in jax.tree.leaves(gradient["predictor"]))


def test_a_share_is_searched_anew_and_old_values_too(learner):
    config = dataclasses.replace(learner.config, reanalyse=0.5, search_value=True, search_value_age=10)
    again = MuZeroLearner(config, spec_of())
    one = rows(again, terminated=[2], resets=[4])
    age = np.broadcast_to(np.arange(len(one.reward), dtype=np.int32)[:, None] * 10, one.reward.shape)
    one = one._replace(extras={**one.extras, "updates": age})
    twice = jax.tree.map(lambda x: np.concatenate([x, x], axis=1), one._replace(carry=()))
    lesson = jax.jit(again.lesson)(begun(again)._replace(updates=jnp.int32(21)), twice, jax.random.key(1))
    assert np.abs(lesson.found["policy"][:, 0] - np.array([0.25, 0.75])).max() > 0.1
    np.testing.assert_allclose(lesson.found["policy"][:, 1], [[0.25, 0.75]] * 4)
    # Steps 0 and 1 are more than 10 updates old; step 3 is beyond the end. The model knows nothing: its values are 0.
    np.testing.assert_allclose(lesson.targets.value[:, 0], [0.0, 0.0, 1.0, 0.0], atol=1e-4)
    np.testing.assert_allclose(lesson.targets.value[:, 1], [1.9, 1.9, 1.0, 0.0], atol=1e-4)


@pytest.mark.parametrize(
    ("loop", "options"),
    [("compiled", EFFICIENT | {"prioritized": True, "search_value_age": 2}), ("host", {})],
    ids=["all_options", "host"],
)
def test_images(loop, options):
    settings = SMALL | {"num_simulations": 4} | options
    agent, seen = GumbelMuZero(**settings).on(Picture(), num_envs=4, seed=0, loop=loop), {}
    agent.learn(160, progress=False, callbacks=[lambda _, metrics: seen.update(metrics)])
    assert 0 < seen["reward_loss"] < np.log(11)
    assert ("consistency_loss" in seen) == bool(options)


# --- chance -----------------------------------------------------------------------------------------------------------


def test_codes_name_what_happened():
    learner = StochasticMuZero(**SMALL, num_codes=4).build(spec_of())
    rollout = rows(learner, terminated=[1], resets=[3])
    lesson, train = lesson_of(learner, rollout)
    out, parts = unrolled(learner, train.params, lesson)
    np.testing.assert_allclose(np.asarray(out.chance.code).max(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(np.asarray(out.chance.code).sum(axis=-1), 1, atol=1e-6)
    assert {"chance_loss", "afterstate_loss", "commitment_loss"} <= parts.keys()
    np.testing.assert_array_equal(np.asarray(parts["chance_loss"][2])[:, 0], [1, 1, 0])
    np.testing.assert_array_equal(np.asarray(parts["afterstate_loss"][2])[:, 0], [1, 1, 1])

    def moved(name, at):
        def of(params):
            out = learner.unroll(params, lesson, jax.random.key(2))
            return learner.losses(params, out, lesson)[name][1][at].sum()

        params = jax.tree.map(lambda x: x + 0.01, train.params)  # heads that are not 0
        return {
            part for part, x in jax.jit(jax.grad(of))(params)["model"].items() if any(map(np.any, jax.tree.leaves(x)))
        }

    assert "encoder" in moved("value_loss", 1), "straight through the code"
    assert "encoder" in moved("commitment_loss", 0)
    heads = {"encoder", "encoded", "chance_head"}
    assert moved("chance_loss", 0) & heads == {"chance_head"}, "a code is a target there"


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MuZero, GumbelMuZero])
def test_it_learns_what_pays_only_later(kind):
    """Needs rewards and values of the right step, values from beyond n_steps, and policies from search."""
    settings = SMALL | {"learning_rate": 3e-3, "gradient_steps": 16}
    agent = kind(**settings).on(Road(), num_envs=16, seed=0).learn(6_000, progress=False)
    assert agent.evaluate(50).mean > 0.9
    values = [agent.explain(np.array([place, 1.0], np.float32))["value"] for place in (0.0, 0.5, 0.75)]
    assert values[0] < values[1] < values[2] < 1.1


def test_it_learns_both_sides_of_a_game():
    """Each is best off with a pick of 1, which the other pays: 1 now, and 0.9 less when the other does the same."""
    agent = MuZero(**SMALL).on("renshu/TwoPicks-v0", num_envs=16, seed=0).learn(3_000, progress=False)
    found = agent.explain(np.array([0, 0], np.int8))
    assert found["value"] == pytest.approx(0.1, abs=0.25)
    assert found["action_values"][1] == pytest.approx(0.1, abs=0.25)
    assert agent.explain(np.array([1, 1], np.int8))["value"] == pytest.approx(1.0, abs=0.25)


# --- agents -----------------------------------------------------------------------------------------------------------


def test_explain_shows_the_search_beside_the_network():
    agent = StochasticMuZero(**SMALL, num_codes=4).on(Road(), num_envs=4, seed=0)
    obs = np.array([0.0, 1.0], np.float32)
    found = agent.explain(obs)
    assert found.keys() == {"probabilities", "value", "search_policy", "action_values", "visits", "search_value"}
    assert found["probabilities"].sum() == pytest.approx(1)
    assert found["search_policy"].sum() == pytest.approx(1)
    assert agent.predict(obs) == found["visits"].argmax()


def test_sampled_actions_are_within_the_box():
    agent = SampledMuZero(**SMALL | {"num_sampled_actions": 6}).on(Aim(), num_envs=4, seed=0)
    agent.learn(400, progress=False)
    obs = np.array([0.3], np.float32)
    found = agent.explain(obs)
    shapes = {name: x.shape for name, x in found.items()}
    assert shapes["choices"] == (6, 1)
    assert shapes["search_policy"] == shapes["visits"] == (6,)
    assert shapes["action"] == shapes["log_std"] == (1,)
    np.testing.assert_allclose(found["choices"][0], found["action"], rtol=1e-5)
    assert (np.abs(found["choices"]) < 1).all()
    assert len(np.unique(found["choices"])) == 6
    recorded = np.asarray(agent.state.memory.ring.action)[:80]
    assert (np.abs(recorded) < 1).all()
    assert recorded.std() > 0.3
    assert Aim.action_space.contains(agent.predict(obs))
    chosen = np.abs(found["choices"] * 2 - agent.predict(obs)).max(axis=1).argmin()
    np.testing.assert_allclose(agent.predict(obs), 2 * found["choices"][chosen], rtol=1e-4)
    assert found["visits"][chosen] == found["visits"].max()


def test_temperatures_above_1_reach_the_actors():
    agent = MuZero(**SMALL | {"temperature": lambda remaining: 3.0 * remaining}).on(Road(), num_envs=4, seed=0)
    assert agent.state.exploration == 3.0
    agent.learn(128, progress=False)
    assert agent.state.exploration < 0.1


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MuZero, {"search_value": True}, "give reanalyse > 0"),
        (MuZero, {"elite_episodes": True}, "elite_episodes"),
        (MuZero, {"buffer_size": 32, "n_steps": 8}, "cannot be drawn from a memory of 8 steps"),
        (MuZero, {"num_simulations": 0}, "num_simulations"),
        (MuZero, {"temperature": -1.0}, "temperature"),
        (MuZero, {"search": "uct"}, "puct"),
        (StochasticMuZero, {"search": "gumbel"}, "puct"),
        (StochasticMuZero, {"value_prefix": True}, "has no value_prefix"),
        (StochasticMuZero, {"max_num_considered_actions": 4}, "has no max_num_considered_actions"),
    ],
)
def test_bad_input(kind, options, message):
    with pytest.raises(HyperparameterError, match=message):
        kind(**SMALL | options).on(Road(), num_envs=4)


def test_bad_environments(tmp_path):
    with pytest.raises(HyperparameterError, match="one player or two"):
        MuZero(**SMALL).build(spec_of(players=3))
    with pytest.raises(SpaceError, match="SampledMuZero"):
        SampledMuZero(**SMALL).on(Road())
    with pytest.raises(HyperparameterError, match="recorded as it acted"):
        MuZero(**SMALL).on(PPO(n_steps=16).on(Road(), num_envs=4).collect(64, to=tmp_path / "data"))
