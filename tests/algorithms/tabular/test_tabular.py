"""Learning with tables: updates by hand and against plain Python, rollouts cut anywhere, bad input."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu import SARSA, DynaQ, ExpectedSARSA, Linear, QLearning
from renshu.algorithms.tabular.tabular import epsilon_greedy
from renshu.errors import HyperparameterError, NotFiniteError, SpaceError
from renshu.types import EnvSpec, Rollout, TimeStep
from tests import probes
from tests.algorithms.rollouts import assert_same, beginning

KINDS: dict[str, Any] = {"q": QLearning, "sarsa": SARSA, "expected": ExpectedSARSA, "dyna": DynaQ}
KEY = jax.random.key(0)
STATES, ACTIONS = 4, 2
EPSILON = {"exploration_initial_eps": 0.25, "exploration_final_eps": 0.25}
every = pytest.mark.parametrize("name", KINDS)


@functools.cache
def learner_of(name: str, num_envs: int = 1, n_steps: int = 1, **options: Any) -> Any:
    options = {"learning_rate": 0.5, "gamma": 0.8, "n_steps": n_steps, **EPSILON, **options}
    if name == "dyna":
        options = {"planning_steps": 0, **options}
    spec = EnvSpec(spaces.Discrete(STATES), spaces.Discrete(ACTIONS), num_envs)
    learner = KINDS[name](**options).build(spec)
    learner.learn = jax.jit(learner.learn)
    return learner


def ready(learner: Any, table: Any = None) -> Any:
    """A state in the middle of training, with a table."""
    state = learner.init(KEY)
    state = state._replace(counters=state.counters._replace(target=jnp.int32(10**6)))
    return state if table is None else state._replace(params=jnp.asarray(table, jnp.float32))


def steps_of(obs: Any, action: Any, reward: Any, terminated: Any, first: Any) -> Rollout:
    """A rollout from lists, `[T+1, N]` and `[T, N]`."""
    return Rollout(
        obs=np.asarray(obs, np.int32),
        first=np.asarray(first, bool),
        action=np.asarray(action, np.int32),
        reward=np.asarray(reward, np.float32),
        terminated=np.asarray(terminated, bool),
        carry=(),
        extras=(),
    )


# --- by hand --------------------------------------------------------------------------------------------------------

TABLE = [[1.0, 2.0], [3.0, -1.0], [0.0, 0.0], [8.0, 8.0]]
# In state 0, action 1, reward 1, on to state 1, where action 1 is taken: its value is -1, the best 3.
BY_HAND = {
    "q": 2 + 0.5 * (1 + 0.8 * 3 - 2),
    "dyna": 2 + 0.5 * (1 + 0.8 * 3 - 2),
    "sarsa": 2 + 0.5 * (1 + 0.8 * -1 - 2),
    "expected": 2 + 0.5 * (1 + 0.8 * (0.875 * 3 + 0.125 * -1) - 2),
}


@every
def test_one_step_by_hand(name):
    learner = learner_of(name, n_steps=2)
    state = ready(learner, TABLE)
    # The second step pays 0 and terminates; Sarsa does not get to it yet.
    rollout = steps_of([[0], [1], [3]], [[1], [1]], [[1], [0]], [[0], [1]], [[1], [0], [0]])
    after, metrics = learner.learn(state, rollout, KEY)
    last = -1.0 if name == "sarsa" else -1 + 0.5 * (0 - -1)
    expected = np.array(TABLE)
    expected[0, 1], expected[1, 1] = BY_HAND[name], last
    np.testing.assert_allclose(after.params, expected, rtol=1e-6)
    errors = [abs(BY_HAND[name] - 2) / 0.5] + ([] if name == "sarsa" else [1.0])
    assert float(metrics["td_error"]) == pytest.approx(np.mean(errors), rel=1e-5)
    assert (int(after.counters.steps), int(after.counters.updates)) == (2, 2)


@every
def test_truncation_bootstraps_termination_does_not_and_resets_are_skipped(name):
    learner = learner_of(name, n_steps=3)

    def learned(terminated: bool) -> np.ndarray:
        # A step that ends the episode in state 3, a reset with an absurd reward, one more step.
        rollout = steps_of(
            [[0], [3], [2], [2]], [[0], [1], [0]], [[1], [99], [0]], [[terminated], [0], [0]], [[1], [0], [1], [0]]
        )
        after, _ = learner.learn(ready(learner, TABLE), rollout, KEY)
        assert int(after.counters.steps) == 2
        assert int(after.counters.episodes) == 1
        return np.asarray(after.params)

    expected = np.array(TABLE)
    expected[0, 0] = 1 + 0.5 * (1 + 0.8 * 8 - 1)
    np.testing.assert_allclose(learned(False), expected, rtol=1e-6)
    expected[0, 0] = 1 + 0.5 * (1 - 1)
    np.testing.assert_allclose(learned(True), expected, rtol=1e-6)


def test_the_same_pair_in_several_environments_counts_as_often():
    """Their mean error, and as much of the way as one after the other would have gone; never beyond the targets."""
    learner = learner_of("q", num_envs=3)
    flags = [[0, 0, 0]]
    rollout = steps_of([[0, 0, 1], [2, 2, 2]], [[1, 1, 0]], [[10, 4, 1]], flags, [[1, 1, 1], [0, 0, 0]])
    after, _ = learner.learn(ready(learner, TABLE), rollout, KEY)
    expected = np.array(TABLE)
    expected[0, 1], expected[1, 0] = 2 + 0.75 * (7 - 2), 3 + 0.5 * (1 - 3)
    np.testing.assert_allclose(after.params, expected, rtol=1e-6)


def test_the_policy_is_epsilon_greedy_and_chance_decides_between_equals():
    values = jnp.array([[1.0, 3.0, 2.0, 0.0], [5.0, 5.0, 1.0, 5.0]])
    expected = [[0.1, 0.7, 0.1, 0.1], [0.3, 0.3, 0.1, 0.3]]
    np.testing.assert_allclose(epsilon_greedy(values, jnp.float32(0.4)), expected, rtol=1e-6)
    learner = learner_of("q", **{"exploration_initial_eps": 0.4})
    actor_state = learner.actor_state(ready(learner, [[1.0, 2.0], [4.0, 4.0], [0.0, 0.0], [0.0, 0.0]]))
    obs, first = np.repeat([0, 1], 2000).astype(np.int32), np.zeros(4000, bool)
    drawn = np.asarray(learner.act(actor_state, (), TimeStep(obs, first), KEY, explore=True).action).reshape(2, -1)
    np.testing.assert_allclose(drawn.mean(axis=1), [0.8, 0.5], atol=0.04)
    greedy = learner.act(actor_state, (), TimeStep(obs, first), KEY, explore=False)
    np.testing.assert_array_equal(greedy.action, np.repeat([1, 0], 2000))
    found = learner.explain(actor_state, (), beginning(obs[[0, -1]]))
    np.testing.assert_array_equal(found["action_values"], [[1, 2], [4, 4]])
    np.testing.assert_array_equal(found["value"], [2, 4])


def test_schedules_of_the_learning_rate_and_of_exploration():
    learner = learner_of("q", learning_rate=Linear(1.0), exploration_initial_eps=1.0, exploration_fraction=0.5)
    state = learner.init(KEY)
    assert float(state.exploration) == 1.0
    state = state._replace(counters=state.counters._replace(target=jnp.int32(4)))
    rollout = steps_of([[0], [1]], [[0]], [[0]], [[0]], [[0], [0]])
    rates, shares = [], []
    for _ in range(4):
        state, metrics = learner.learn(state, rollout, KEY)
        rates.append(float(metrics["learning_rate"]))
        shares.append(float(state.exploration))
    assert rates == pytest.approx([0.75, 0.5, 0.25, 0.0])
    assert shares == pytest.approx([0.625, 0.25, 0.25, 0.25])


# --- against plain Python -------------------------------------------------------------------------------------------


def stream(seed: int, length: int, num_envs: int) -> Rollout:
    """Random experience in which episodes begin and end anywhere."""
    rng = np.random.default_rng(seed)
    obs = rng.integers(STATES, size=(length + 1, num_envs))
    action = rng.integers(ACTIONS, size=(length, num_envs))
    reward = rng.normal(size=(length, num_envs))
    first, terminated = np.zeros((length + 1, num_envs), bool), np.zeros((length, num_envs), bool)
    first[0] = True
    ended = np.zeros(num_envs, bool)
    for t in range(length):
        first[t + 1], reward[t, ended] = ended, 0.0
        ends = ~ended & (rng.random(num_envs) < 0.3)
        terminated[t] = ends & (rng.random(num_envs) < 0.5)
        ended = ends
    return steps_of(obs, action, reward, terminated, first)


def part(whole: Rollout, start: int, stop: int) -> Rollout:
    rows = {name: getattr(whole, name)[start : stop + 1] for name in ("obs", "first")}
    steps = {name: getattr(whole, name)[start:stop] for name in ("action", "reward", "terminated")}
    return whole._replace(**rows, **steps)


def naive(name: str, table: np.ndarray, whole: Rollout, rate: float, gamma: float, epsilon: float) -> np.ndarray:
    """The book's pseudocode, one environment at a time but for equal pairs."""
    table = np.array(table, np.float64)
    length, num_envs = whole.action.shape
    for t in range(length - (name == "sarsa")):
        errors: dict[tuple[int, int], list[float]] = {}
        for n in range(num_envs):
            if whole.first[t + 1, n]:
                continue
            s, a, s_next = int(whole.obs[t, n]), int(whole.action[t, n]), int(whole.obs[t + 1, n])
            row = table[s_next]
            if name == "sarsa":
                next_value_ = row[whole.action[t + 1, n]]
            elif name == "expected":
                best = row == row.max()
                next_value_ = (1 - epsilon) * row[best].mean() + epsilon * row.mean()
            else:
                next_value_ = row.max()
            target = float(whole.reward[t, n]) + (0 if whole.terminated[t, n] else gamma * next_value_)
            errors.setdefault((s, a), []).append(target - table[s, a])
        for pair, found in errors.items():
            table[pair] += (1 - (1 - rate) ** len(found)) * np.mean(found)
    return table


@every
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), shape=st.sampled_from([(1, 12), (3, 1), (3, 4)]))
def test_rollouts_of_any_length_equal_the_book(name, seed, shape):
    """Twelve steps as one rollout, three or twelve: the same table, that of plain Python."""
    num_envs, n_steps = shape
    learner = learner_of(name, num_envs, n_steps)
    table = np.random.default_rng(seed).normal(size=(STATES, ACTIONS)).astype(np.float32)
    whole, state = stream(seed, 12, num_envs), ready(learner, table)
    for start in range(0, 12, n_steps):
        state, _ = learner.learn(state, part(whole, start, start + n_steps), KEY)
    expected = naive(name, table, whole, 0.5, 0.8, 0.25)
    np.testing.assert_allclose(state.params, expected, rtol=1e-4, atol=1e-5)
    assert int(state.counters.steps) == (~whole.first[1:]).sum()


def test_the_step_that_waits_is_dropped_where_the_stream_breaks_off():
    """New environments after a fault: no action followed. What terminated needs none."""
    learner = learner_of("sarsa", num_envs=2)
    before = steps_of([[0, 1], [1, 2]], [[0, 0]], [[5, 5]], [[0, 1]], [[1, 1], [0, 0]])
    anew = steps_of([[2, 2], [2, 2]], [[1, 1]], [[0, 0]], [[0, 0]], [[1, 1], [0, 0]])
    state, _ = learner.learn(ready(learner, TABLE), before, KEY)
    np.testing.assert_array_equal(state.params, TABLE)
    state, _ = learner.learn(state, anew, KEY)
    expected = np.array(TABLE)
    expected[1, 0] = 3 + 0.5 * (5 - 3)
    np.testing.assert_allclose(state.params, expected)
    assert learner.resize(state) is state
    other = learner_of("sarsa", num_envs=3)
    assert_same(other.resize(state).aux, other.init(KEY).aux)


# --- planning -------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_model_is_what_was_last_seen(seed):
    num_envs, n_steps, planning = 3, 4, 5
    learner = learner_of("dyna", num_envs, n_steps, planning_steps=planning)
    whole, aux, seen = stream(seed, 12, num_envs), learner.init_aux(), {}
    transitions = _jitted(learner)
    for start in range(0, 12, n_steps):
        rollout = part(whole, start, start + n_steps)
        steps, aux = transitions(aux, rollout, jax.random.key(seed + start))
        steps = jax.tree.map(lambda x: np.asarray(x).reshape(n_steps, 1 + planning, num_envs), steps)
        for t in range(n_steps):
            for n in np.flatnonzero(rollout.valid[t]):
                pair = int(rollout.obs[t, n]), int(rollout.action[t, n])
                seen[pair] = (rollout.reward[t, n], rollout.obs[t + 1, n], rollout.terminated[t, n])
            assert_same([x[t, 0] for x in (steps.action, steps.real)], [rollout.action[t], rollout.valid[t]])
            for row in zip(*(x[t, 1:].reshape(-1) for x in jax.tree.leaves(steps)), strict=True):
                s, a, reward, s_next, terminated, real = row
                assert real
                assert seen[int(s), int(a)] == (reward, s_next, terminated)
    assert int(aux.count) == len(seen)
    assert sorted(np.asarray(aux.order)[: len(seen)].tolist()) == sorted(s * ACTIONS + a for s, a in seen)


@functools.cache
def _jitted(learner):
    return jax.jit(learner.transitions)


def test_planning_draws_every_pair_and_learns_from_it():
    learner = learner_of("dyna", 1, 1, planning_steps=400, learning_rate=0.3)
    state = ready(learner)
    for s, reward in ((0, 0.0), (1, 1.0)):
        rollout = steps_of([[s], [s + 1]], [[0]], [[reward]], [[s == 1]], [[0], [0]])
        state, _ = learner.learn(state, rollout, KEY)
    expected = np.zeros((STATES, ACTIONS))
    expected[0, 0], expected[1, 0] = 0.8, 1.0
    np.testing.assert_allclose(state.params, expected, rtol=1e-4)


# --- bad numbers, bad input -----------------------------------------------------------------------------------------


@every
def test_no_infinity_comes_into_the_table(name):
    learner = learner_of(name, n_steps=4)
    state = ready(learner, np.array(TABLE) * 4e37)
    for value in (3e38, -3e38):
        rollout = steps_of([[0], [1], [0], [1], [0]], [[0]] * 4, [[value]] * 4, [[0]] * 4, [[0]] * 5)
        after, metrics = learner.learn(state, rollout, KEY)
        np.testing.assert_array_equal(after.params, state.params)
        assert not np.isfinite(metrics["td_error"])


def test_the_loops_say_so():
    agent = QLearning(initial_value=-3e38).on(Opposite, seed=0)
    before = np.array(agent.parameters)
    with pytest.raises(NotFiniteError, match="td_error is nan"):
        agent.learn(50, progress=False)
    np.testing.assert_array_equal(agent.parameters, before)


class Opposite(probes.Value):
    """Pays more than a float32 can be away from the table's values."""

    def step(self, action):
        return self.observe(), 3e38, True, False, {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 1.5}, "learning_rate must be a finite number >= 0 and <= 1 or a schedule"),
        ({"obs_bins": 0}, "obs_bins must be a whole number of at least 1, or a list of such, not 0"),
        ({"obs_bins": (3, 2.5)}, r"obs_bins\[1\] must be a whole number"),
        ({"obs_bins": "5"}, "obs_bins must be"),
        ({"obs_low": (0.0, np.nan)}, r"obs_low\[1\] must be a finite number"),
        ({"planning_steps": 2}, "QLearning has no hyperparameter 'planning_steps'"),
    ],
)
def test_bad_hyperparameters(options, words):
    with pytest.raises(HyperparameterError, match=words):
        QLearning(**options)


def test_hyperparameters_to_json_and_back():
    algorithm = DynaQ(obs_bins=[2, 3], obs_low=-1, obs_high=(1, 2.5), learning_rate=Linear(0.5, 0.1), planning_steps=3)
    data = algorithm.to_json()
    assert (data["obs_bins"], data["obs_low"], data["obs_high"]) == ([2, 3], -1.0, [1.0, 2.5])
    assert DynaQ.from_json(data) == algorithm
    assert hash(algorithm) == hash(DynaQ.from_json(data))
    assert DynaQ.parse({"obs_bins": "[2, 3]", "obs_low": "None"}) == {"obs_bins": [2, 3], "obs_low": None}


def test_spaces_that_no_table_holds():
    with pytest.raises(SpaceError, match=r"about 10\^20 entries"):
        QLearning().build(EnvSpec(spaces.Box(-1, 1, (20,), np.float32), spaces.Discrete(2), 1))
    with pytest.raises(SpaceError, match="Give obs_low and obs_high"):
        QLearning().on("CartPole-v1")
    with pytest.raises(SpaceError, match="image"):
        QLearning().on(lambda: Pictures())


class Pictures(probes.Value):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)


def test_bins_of_observations_have_a_name_of_their_own():
    """`bins` of `on(...)` is for actions."""
    with pytest.raises(HyperparameterError, match="QLearning: bins= is called obs_bins= now"):
        QLearning(bins=3)
    assert QLearning.from_json({"bins": [3]}) == QLearning(obs_bins=[3]), "older files are still read"
