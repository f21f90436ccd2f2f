"""Strategies of evosax: their own numbers through ours, learning, both loops, files."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu import ES, Linear, load
from renshu.algorithms.evolution.es import STRATEGIES, Evosax
from tests.loops.tiny import same

evosax = pytest.importorskip("evosax", reason="evosax is not installed")
pytestmark = pytest.mark.usefixtures("compiled_fast")
D = 10


def sphere(x):
    return (x**2).sum(axis=-1)


def rastrigin(x):
    return 10 * x.shape[-1] + (x**2 - 10 * jnp.cos(2 * jnp.pi * x)).sum(axis=-1)


def of_evosax(name, cost, start, generations, population):
    """Best values by evosax alone, as its own documentation has it."""
    search = getattr(evosax.algorithms, name)(population_size=population, solution=start)
    params = search.default_params.replace(std_init=jnp.asarray(1.0))
    state, best = search.init(jax.random.key(0), start, params), []
    for i in range(generations):
        key_ask, key_tell = jax.random.split(jax.random.key(i))
        members, state = search.ask(key_ask, state, params)
        state, _ = search.tell(key_tell, members, cost(members), state, params)
        best.append(state.best_fitness)
    return np.array(best), np.asarray(search.get_mean(state))


@pytest.mark.parametrize("cost", [sphere, rastrigin])
@pytest.mark.parametrize("name", ["cma_es", "sep_cma_es", "snes"])
def test_values_are_those_of_evosax(name, cost):
    start, generations, population = 3.0 * jnp.ones(D), 50, 16
    ours = Evosax(ES(strategy=name, population_size=population, sigma=1.0), D)
    state, best = ours.init(jax.random.key(0), start), []
    for i in range(generations):
        key_ask, key_tell = jax.random.split(jax.random.key(i))
        members, state = ours.ask(key_ask, state)
        state = ours.tell(key_tell, members, -cost(members), state, jnp.float32(1.0))
        best.append(state.best_fitness)
    theirs, mean = of_evosax(STRATEGIES[name][0], cost, start, generations, population)
    np.testing.assert_array_equal(np.array(best), theirs)
    np.testing.assert_array_equal(ours.solution(state, members, -cost(members)), mean)
    assert best[-1] < 0.5 * best[0]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_gets_nearer_to_the_best(name):
    search = Evosax(ES(strategy=name, population_size=32, sigma=0.5), 40)
    state = search.init(jax.random.key(0), 2.0 * jnp.ones(40))
    rate = jnp.float32({"adam": 0.1, "sgd": 1.0}[(STRATEGIES[name][1] or ("sgd",))[0]])

    @jax.jit
    def generation(state, key):
        members, state = search.ask(key, state)
        fitness = -sphere(members)
        state = search.tell(jax.random.fold_in(key, 1), members, fitness, state, rate)
        return state, search.solution(state, members, fitness)

    for i in range(60):
        state, found = generation(state, jax.random.key(i))
    assert np.isfinite(found).all()
    assert sphere(found) < 0.8 * 160
    assert generation._cache_size() == 1, "one program serves all generations"


def test_it_balances_the_pole(tmp_path):
    agent = ES(population_size=32, sigma=0.3, net_arch=[], learning_rate=0.05).on("renshu/CartPole-v1", seed=0)
    assert agent.evaluate(10).mean < 100
    agent.learn(300_000, progress=False)
    assert agent.evaluate(10).mean > 400
    again = load(agent.save(tmp_path / "agent.safetensors"))
    assert again.evaluate(4).returns == agent.evaluate(4).returns
    assert agent.explain(np.zeros(4, np.float32))["probabilities"].shape == (2,)


def test_half_save_load_and_the_other_half(tmp_path):
    def made():
        return ES(strategy="cma_es", population_size=6, net_arch=[], norm_obs=True).on("renshu/Pendulum-v1", seed=0)

    steps = 2 * 6 * 200
    whole, half = made().learn(2 * steps, progress=False), made().learn(steps, progress=False)
    again = load(half.save(tmp_path / "agent.safetensors", memory=True)).learn(steps, progress=False)
    assert same(again.parameters, whole.parameters)
    assert same(again.state.search, whole.state.search)


def test_step_size_and_weight_decay():
    slow, fast = (
        ES(population_size=8, net_arch=[], learning_rate=rate).on("renshu/CartPole-v1", seed=0)
        for rate in (1e-4, Linear(1e-1))
    )
    before = slow.trainer.learner.policy.weights(slow.parameters)
    moved = []
    for agent in (slow, fast):
        agent.learn(1, progress=False)  # one generation
        moved.append(np.abs(agent.trainer.learner.policy.weights(agent.parameters) - before).max())
    assert moved[0] == pytest.approx(1e-4, rel=0.1)  # Adam's first step
    assert moved[1] > 100 * moved[0]
    search = Evosax(ES(population_size=8, weight_decay=1.0, sigma=0.5), 3)
    state = search.init(jax.random.key(0), jnp.ones(3))
    members, asked = search.ask(jax.random.key(1), state)
    after = search.tell(jax.random.key(2), members, jnp.zeros(8), asked, jnp.float32(0.1))
    assert (after.mean < state.mean).sum() >= 2, "nothing but the weights' size counts"


AT_ONCE = """
from renshu import ES, experiment

search = ES(strategy="cma_es", population_size=8, net_arch=[4])
found = experiment(search, "renshu/CartPole-v1", seeds=8, steps=30_000, progress=False)
print(len(found.curves[0].returns), "curves")
"""


def test_programs_with_eigenvalues_run_at_once():
    """Batches of them in a program on each core waited for each other for ever; in a process that can be ended."""
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "8 curves", done.stderr


@pytest.mark.parametrize("name", ["de", "pso", "gradientless_descent", "hill_climbing", "open_es"])
def test_who_fails_is_not_remembered(name):
    """Where members of old stay, one that failed must not: all others of its generation may be better than they."""
    learner = ES(strategy=name, population_size=6, net_arch=[]).on("renshu/CartPole-v1", seed=0).trainer.learner
    told = learner.failed(jnp.float32(-200.0))
    assert (told < -1e20) == (name != "open_es")
    search = learner.strategy
    state = search.init(jax.random.key(0), jnp.zeros(learner.policy.size))
    for i, low in enumerate((-900.0, -200.0)):
        members, state = search.ask(jax.random.key(i), state)
        fitness = jnp.full(6, low).at[0].set(told if i else low)
        state = search.tell(jax.random.key(i), members, fitness, state, jnp.float32(0.1))
    if hasattr(state, "population") and name != "pso":
        assert not (state.population == members[0]).all(axis=1).any()
    assert not (state.best_solution == members[0]).all()


def test_the_best_of_no_generation_is_where_the_search_begins():
    agent = ES(population_size=6, net_arch=[]).on("renshu/CartPole-v1", seed=0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(agent.member("best").parameters))


def test_sigma_is_the_radius_of_gradientless_descent():
    draws = []
    for sigma in (0.1, 1.0):
        search = Evosax(ES(strategy="gradientless_descent", population_size=64, sigma=sigma), D)
        members, _ = search.ask(jax.random.key(0), search.init(jax.random.key(0), jnp.zeros(D)))
        draws.append(float(jnp.linalg.norm(members, axis=1).max()))
    assert draws[1] > 3 * draws[0]
