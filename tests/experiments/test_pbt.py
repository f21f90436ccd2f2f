"""Population-based training: who goes on from whom, with which values, and that it helps."""

import csv

import jax
import numpy as np
import pytest

import renshu
from renshu import A2C, ARS, DQN
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError, NotFiniteError
from renshu.experiments.pbt import Exchange, Training, pbt
from renshu.experiments.vmapped import PopulationTrainer, Row, fitted_backend
from tests.contract.algorithms import Choices
from tests.loops.tiny import same

TINY = {"n_steps": 8, "net_arch": [8]}
RANGES = {"learning_rate": (1e-6, 1e-2), "ent_coef": (0.0, 0.01)}


def exchange(seed=0, quantile=0.25, resample=0.25):
    return Exchange(RANGES, np.random.default_rng(seed), quantile, resample, (0.8, 1.25))


def test_the_worst_go_on_from_the_best():
    scores = np.array([3.0, 8.0, 1.0, 6.0, 2.0, 7.0, 5.0, 4.0])
    for seed in range(20):
        parents = exchange(seed).parents(scores, np.ones(8, bool))
        assert set(np.flatnonzero(parents != np.arange(8))) == {2, 4}
        assert set(parents[[2, 4]]) <= {1, 5}


def test_members_without_an_episode_stay_and_those_with_nan_are_replaced():
    scores, finite = np.array([np.nan, 1.0, 2.0, 3.0, 9.0]), np.array([True, True, True, True, False])
    parents = exchange().parents(scores, finite)
    assert parents.tolist() == [0, 3, 2, 3, 3]
    assert exchange().parents(scores, finite, last=True).tolist() == [0, 1, 2, 3, 3]
    assert exchange().parents(np.full(3, np.nan), np.array([True, False, True]))[1] in (0, 2)


def test_new_values_are_near_or_drawn_anew_and_within_the_range():
    values, changed = np.full(4000, 1e-3), np.arange(4000) % 2 == 0
    found = exchange().explored("learning_rate", values, changed)
    assert (found[~changed] == 1e-3).all()
    near = np.isclose(found[changed], 0.8e-3) | np.isclose(found[changed], 1.25e-3)
    assert near.mean() == pytest.approx(0.75, abs=0.03)
    assert found.min() >= 1e-6
    assert found.max() <= 1e-2
    drawn = exchange().drawn("learning_rate", 4000)
    assert np.median(np.log10(drawn)) == pytest.approx(-4, abs=0.1)
    assert exchange().drawn("ent_coef", 4000).mean() == pytest.approx(0.005, abs=3e-4)


@pytest.fixture(scope="module")
def trained():
    how = {"ranges": RANGES, "steps": 6_000, "population_size": 6, "num_envs": 2, "progress": False}
    return pbt(A2C(**TINY), Choices(), **how), pbt(A2C(**TINY), Choices(), **how)


def test_a_population_learns_and_is_the_same_again(trained, tmp_path):
    found, again = trained
    assert found.scores[-1].min() > 2.0 > found.scores[0].max()  # of 4 steps at most, about 2.7 on average
    assert np.array_equal(found.scores, again.scores)
    assert np.array_equal(found.parents, again.parents)
    assert same(found.best.parameters, again.best.parameters)
    assert (found.steps[-1] >= 6_000).all()
    assert (np.diff(found.steps.min(axis=1)) > 0).all(), "who goes on from another counts its steps"
    # Whoever went on from another has its values, changed, and its steps.
    changed = np.argwhere(found.parents[:-1] != np.arange(6))
    assert len(changed) >= 10
    for k, i in changed:
        parent = found.parents[k, i]
        assert found.scores[k, parent] >= found.scores[k, i]
        rate = found.values["learning_rate"]
        assert rate[k + 1, i] != rate[k, parent] or rate[k, parent] in np.float32(RANGES["learning_rate"])
    rows = list(csv.DictReader(found.save(tmp_path / "a.csv").open()))
    assert len(rows) == found.scores.size
    assert float(rows[-1]["return"]) == pytest.approx(found.scores[-1, -1])
    assert found.plot(tmp_path / "a.png").stat().st_size > 10_000
    assert found.table().row_count == 6


def test_agents_have_the_values_that_they_ended_with(trained):
    found = trained[0]
    for i in (0, int(found.order[0])):
        agent = found.agents[i]
        assert agent.algorithm.learning_rate == pytest.approx(found.values["learning_rate"][-1, i])
        assert agent.steps == found.steps[-1, i]
    assert found.best.evaluate(20).mean > 2.0
    before = jax.tree.leaves(found.best.parameters)[0].copy()
    found.best.learn(64, progress=False)
    assert not np.array_equal(before, jax.tree.leaves(found.best.parameters)[0])


def plain(tree):
    """The numbers in a tree, those of keys too."""
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


def test_whoever_goes_on_from_another_takes_all_but_its_key():
    """Memory and environments too, without their chance: what a memory saw last leads to what is shown next."""
    algorithm = DQN(net_arch=[8], buffer_size=20, learning_starts=4, batch_size=4)
    how = {"num_envs": 1, "loop": None, "bins": None, "frame_stack": None, "masks": None}
    backend, fits = fitted_backend(algorithm, EnvSource.of(Choices()), **how)
    rows = [Row(f"member {i}", algorithm, {"learning_rate": 1e-3}, i, ("learning_rate",)) for i in range(3)]
    trainer = PopulationTrainer(backend, algorithm, fits)
    training = Training(trainer, rows, exchange(), 200, 50)
    training.cuts = [2]  # as on two cores: members 0 and 1 in one program, 2 in the other
    states = []
    for part in (rows[:2], rows[2:]):
        state = trainer.start(*trainer.inputs(part), np.int32(200))
        states.append(trainer.chunk(state, np.int32(0), np.int32(12))[0])
    before = plain(states)
    after = plain(training._dealt(states, np.array([0, 2, 2]), {"learning_rate": np.float32([1e-3, 2e-3, 1e-3])}))
    parent, child = jax.tree.map(lambda x: x[0], before[1]), jax.tree.map(lambda x: x[1], after[0])
    was, now = before[0].loop_state.envs.key[1], child.loop_state.envs.key
    np.testing.assert_array_equal(now, was)
    child = child._replace(loop_state=child.loop_state._replace(envs=child.loop_state.envs._replace(key=())))
    parent = parent._replace(loop_state=parent.loop_state._replace(envs=parent.loop_state.envs._replace(key=())))
    for name in ("state", "loop_state", "finite"):
        assert same(getattr(child, name), getattr(parent, name))
    assert int(child.state.memory.ring.size) > 8
    assert not same(jax.tree.map(lambda x: x[1], before[0].state.memory), parent.state.memory)
    np.testing.assert_array_equal(after[0].key, before[0].key)
    assert after[0].values["learning_rate"].tolist() == np.float32([1e-3, 2e-3]).tolist()
    assert same(jax.tree.map(lambda x: x[0], after[0].state), jax.tree.map(lambda x: x[0], before[0].state))


def test_populations_of_evolution_go_their_own_ways():
    """A copy tries other members, in other episodes, than the one that it was copied from."""
    algorithm = ARS(n_delta=2)
    how = {"num_envs": 4, "loop": None, "bins": None, "frame_stack": None, "masks": None}
    backend, fits = fitted_backend(algorithm, EnvSource.of("renshu/CartPole-v1"), **how)
    rows = [Row(f"member {i}", algorithm, {"learning_rate": 1e-3}, i, ("learning_rate",)) for i in range(2)]
    trainer = PopulationTrainer(backend, algorithm, fits)
    states = [trainer.start(*trainer.inputs(rows), np.int32(200))]
    values = {"learning_rate": np.float32([1e-3, 2e-3])}
    training = Training(trainer, rows, exchange(), 200, 50)
    training.cuts = []  # both in one program, as on one core
    after = training._dealt(states, np.array([0, 0]), values)[0]
    assert len(set(np.asarray(after.state.seed).tolist())) == 2
    assert len(np.unique(jax.random.key_data(after.loop_state.envs.key), axis=0)) == 2


def test_a_member_with_nan_is_replaced():
    how = {"steps": 600, "interval": 100, "population_size": 4, "num_envs": 2, "progress": False}
    found = pbt(A2C(**TINY), Choices(), ranges={"learning_rate": (1e-3, 3e38)}, **how)
    assert np.isfinite(found.scores[-1]).all()
    k = np.arange(len(found.scores))
    assert np.isfinite(found.scores[k, found.lineage()]).all()
    assert all(np.isfinite(x).all() for i in range(4) for x in jax.tree.leaves(found.agents[i].parameters))
    with pytest.raises(NotFiniteError, match="member 0"):
        pbt(A2C(**TINY), Choices(), ranges={"learning_rate": (1e38, 3e38)}, **how)


@pytest.mark.parametrize(
    ("env", "changes", "message"),
    [
        ("CartPole-v1", {}, "take a DeviceEnv"),
        (None, {"ranges": {}}, "can vary learning_rate"),
        (None, {"ranges": {"learning_rat": (0, 1)}}, "learning_rate"),
        (None, {"ranges": {"n_steps": (1, 5)}}, "cannot vary 'n_steps'"),
        (None, {"ranges": {"learning_rate": (1e-2, 1e-3)}}, "least and the greatest"),
        (None, {"ranges": {"gamma": (0.5, 1.5)}}, "gamma"),
        (None, {"population_size": 1}, "at least 2 members"),
        (None, {"quantile": 0.7}, "quantile=0.7"),
        (None, {"perturbations": (0.0, 2.0)}, "factors above 0"),
        (None, {"populaton_size": 3}, "population_size"),
    ],
)
def test_bad_input(env, changes, message):
    import gymnasium

    given = gymnasium.make(env) if env else Choices()
    with pytest.raises(HyperparameterError, match=message):
        pbt(A2C(**TINY), given, **{"ranges": RANGES, "steps": 100, "progress": False} | changes)


def test_it_is_in_the_package():
    assert renshu.pbt is pbt
