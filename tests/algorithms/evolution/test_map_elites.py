"""MAP-Elites: who enters the archive, of whom children are made, and that elites behave differently."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from matplotlib.figure import Figure

from renshu import PPO, MAPElites, load
from renshu.algorithms.evolution.drawing import draw_archive
from renshu.algorithms.evolution.map_elites import Archive, Elites
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import CheckpointError, HyperparameterError
from renshu.types import Rollout

pytestmark = pytest.mark.usefixtures("compiled_fast")


class Ridge(DeviceEnv):
    """Two actions, twice in an episode; the second should be the square of the first, whatever that is."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    max_episode_steps = 2

    def reset(self, key):
        return jnp.int32(0), jnp.ones(1)

    def step(self, state, action, key):
        return Step(state + 1, jnp.ones(1), 1.0 - jnp.abs(action[1] - action[0] ** 2), jnp.bool_(False))


class Lasting(DeviceEnv):
    """Episodes that end at the first positive action, or after four steps."""

    observation_space = spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps = 4

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(1)

    def step(self, state, action, key):
        after = state + 1
        worth = jnp.where(action[0] < -0.5, jnp.nan, 1.0)  # of which no elite may be made
        return Step(after, after[None].astype(jnp.float32), worth, action[0] > 0)


def first_action(episode):
    return jnp.mean(episode.action[:, :1], axis=0, where=episode.valid[:, None])


def both_actions(episode):
    return jnp.mean(episode.action, axis=0, where=episode.valid[:, None])


TINY = {"behavior": first_action, "behavior_low": [-1], "behavior_high": [1], "cells": [8], "net_arch": []}
SQUARE = {"behavior": both_actions, "behavior_low": (-1, -1), "behavior_high": (1, 1), "cells": (8, 8), "net_arch": []}


def naive(archive, config, weights, fitness, behavior):
    """Let members into an archive, a dictionary by cell, one after the other."""
    low, high = (np.float32(x) for x in (config.behavior_low, config.behavior_high))
    for i in range(len(fitness)):
        if not (np.isfinite(fitness[i]) and np.isfinite(behavior[i]).all()):
            continue
        with np.errstate(over="ignore"):
            place = np.floor((behavior[i] - low) / (high - low) * np.float32(config.cells))
        cell = tuple(int(min(max(x, 0), count - 1)) for x, count in zip(place, config.cells, strict=True))
        if cell not in archive or fitness[i] > archive[cell][1]:
            archive[cell] = (weights[i], fitness[i], behavior[i])


def test_the_archive_is_that_of_a_dictionary():
    config = MAPElites(behavior=len, behavior_low=(-1, 0, 2), behavior_high=(1, 4, 3), cells=(4, 2, 3))
    search, rng, expected = Elites(config), np.random.default_rng(0), {}
    archive, tell = search.init(jax.random.key(0), jnp.zeros(5)), jax.jit(search.tell)
    for _ in range(12):
        weights = rng.normal(size=(40, 5)).astype(np.float32)
        fitness = rng.integers(-4, 5, 40).astype(np.float32)  # with ties
        # Sixteenths are exact in all that follows; some lie on edges, and outside.
        behavior = (np.array([0, 2, 2.5]) + rng.integers(-24, 25, (40, 3)) / np.array([16, 8, 32])).astype(np.float32)
        fitness[rng.integers(40, size=4)] = [np.nan, np.inf, -np.inf, np.nan]
        behavior[rng.integers(40, size=4), rng.integers(3, size=4)] = [np.nan, np.inf, -np.inf, 3e38]
        key = jax.random.key(0)
        archive = tell(key, (weights, behavior), fitness, archive, 0.0)
        naive(expected, config, weights, fitness, behavior)
        found = [np.asarray(x).reshape(*config.cells, *x.shape[1:]) for x in archive]
        assert {cell for cell in np.ndindex(config.cells) if np.isfinite(found[1][cell])} == set(expected)
        for cell, elite in expected.items():
            for value, wanted in zip(found, elite, strict=True):
                np.testing.assert_array_equal(value[cell], wanted)
    assert len(expected) > 20


def test_of_equals_the_first_enters_and_stays():
    search = Elites(MAPElites(**TINY))
    archive = search.init(jax.random.key(0), jnp.zeros(1))
    weights, behavior = jnp.arange(4.0)[:, None], jnp.array([[0.1], [0.1], [0.1], [-3.0]])
    archive = search.tell(jax.random.key(0), (weights, behavior), jnp.array([1.0, 2.0, 2.0, 0.0]), archive, 0.0)
    np.testing.assert_array_equal(archive.weights[:, 0], [3, 0, 0, 0, 1, 0, 0, 0])
    archive = search.tell(jax.random.key(0), (weights + 10, behavior), jnp.array([2.0, 2.0, 2.0, 0.5]), archive, 0.0)
    np.testing.assert_array_equal(archive.weights[:, 0], [13, 0, 0, 0, 1, 0, 0, 0])
    assert float(search.solution(archive, weights, jnp.zeros(4))[0]) == 1.0


def test_children_are_made_of_elites():
    config = MAPElites(**TINY, population_size=4_000, sigma_iso=0.05, sigma_line=0.3)
    search, key = Elites(config), jax.random.key(1)
    rng = np.random.default_rng(0)
    fitness = jnp.array([-jnp.inf, 1.0, -jnp.inf, 5.0, -jnp.inf, -jnp.inf, 0.0, -jnp.inf])
    filled = np.array([1, 3, 6])
    # Weights in empty cells would be seen from afar; two elites differ in each place, so that parents can be told.
    weights = np.full((8, 40), 1e6, np.float32)
    weights[filled] = rng.normal(size=(3, 40))
    children = np.asarray(search.ask(key, Archive(jnp.asarray(weights), fitness, jnp.zeros((8, 1))))[0], np.float64)
    assert np.abs(children).max() < 100
    lonely = MAPElites(**TINY, population_size=4_000, sigma_iso=0.05, sigma_line=0.0)
    near = np.asarray(Elites(lonely).ask(key, Archive(jnp.asarray(weights), fitness, jnp.zeros((8, 1))))[0], np.float64)
    distance = np.linalg.norm(near[:, None] - weights[filled], axis=2)
    counts = np.bincount(distance.argmin(axis=1), minlength=3)
    assert (np.abs(counts - 4_000 / 3) < 5 * np.sqrt(4_000 * 2 / 9)).all(), "all alike, whatever their fitness"
    step = near - weights[filled][distance.argmin(axis=1)]
    assert step.std() == pytest.approx(0.05, rel=0.02)
    # The same keys draw the same parents and steps: what is left is the move along the line, one number a child.
    along = children - near
    moved = np.linalg.norm(along, axis=1) > 1e-3
    assert moved.mean() == pytest.approx(2 / 3, abs=0.05), "parents are drawn apart"
    one = weights[filled][distance.argmin(axis=1)]
    shares = []
    for line, own in zip(along[moved], one[moved], strict=True):
        others = [other - own for other in weights[filled].astype(np.float64) if np.abs(other - own).max() > 1e-3]
        fits = [np.linalg.norm(line - (line @ d) / (d @ d) * d) for d in others]
        assert min(fits) < 1e-3
        d = others[int(np.argmin(fits))]
        shares.append((line @ d) / (d @ d))
    assert np.std(shares) == pytest.approx(0.3, rel=0.06)
    assert np.mean(shares) == pytest.approx(0, abs=0.03)


def test_the_first_generation_is_about_the_start():
    search = Elites(MAPElites(**TINY, population_size=1_000, sigma_start=0.7))
    members, archive = search.ask(jax.random.key(0), search.init(jax.random.key(1), jnp.full(20, 3.0)))
    assert float(members.mean()) == pytest.approx(3.0, abs=0.03)
    assert float(members.std()) == pytest.approx(0.7, rel=0.03)
    np.testing.assert_array_equal(search.solution(archive, members, jnp.zeros(1_000)), np.full(20, 3.0))


def learned():
    agent = MAPElites(**SQUARE, sigma_iso=0.05, population_size=32).on(Ridge(), seed=0)
    seen = []
    agent.learn(32 * 2 * 150, progress=False, callbacks=lambda _, metrics: seen.append(metrics))
    return agent, seen


def regret(agent):
    """Mean over columns of the distance of their best elites from the parabola; 1 in a column without any."""
    action = np.asarray(agent.state.search.behavior).reshape(8, 8, 2)
    filled = np.isfinite(np.asarray(agent.state.search.fitness)).reshape(8, 8)
    return np.where(filled, np.abs(action[..., 1] - action[..., 0] ** 2), 1.0).min(axis=1).mean()


def test_elites_differ_and_are_good(tmp_path):
    agent, seen = learned()
    last = seen[-1]
    assert last["coverage"] > 0.8
    assert last["coverage"] > 1.5 * seen[0]["coverage"]
    assert regret(agent) < 0.02
    assert last["fitness_best"] == pytest.approx(2.0, abs=0.02)
    archive = agent.state.search
    filled = np.isfinite(archive.fitness)
    assert last["qd_score"] == pytest.approx(float((archive.fitness - archive.fitness[filled].min())[filled].sum()))
    np.testing.assert_allclose(agent.evaluate(2).mean, last["fitness_best"], rtol=1e-5)
    for wanted in ((-0.9, 0.8), (0.1, 0.1), (0.8, -0.9)):
        one = agent.member(wanted)
        np.testing.assert_allclose(one.predict(np.ones(1, np.float32)), wanted, atol=0.25)
    again = load(one.save(tmp_path / "elite"), behavior=both_actions)
    np.testing.assert_allclose(again.predict(np.ones(1, np.float32)), (0.8, -0.9), atol=0.25)
    with pytest.raises(HyperparameterError, match=r"a behavior is 2 numbers, .* not \(1, 2, 3\)"):
        agent.member((1, 2, 3))
    path = agent.pictures(tmp_path)[0]
    assert path.name == "archive.png"
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_without_selection_they_are_not(monkeypatch):
    tell = Elites.tell

    def blind(self, key, members, fitness, state, learning_rate):
        return tell(self, key, members, jax.random.uniform(key, fitness.shape) * jnp.isfinite(fitness), state, 0.0)

    monkeypatch.setattr(Elites, "tell", blind)
    agent, _ = learned()
    assert regret(agent) > 0.04


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_only_what_was_played_counts(loop):
    """Behaviour is the number of steps here; of two episodes of a member the mean, in any order of environments."""

    def length(episode):
        assert episode.obs.shape == (5, 1)
        there = jnp.concatenate([jnp.ones(1, jnp.bool_), episode.valid])
        last = jnp.max(episode.obs[:, 0], where=there, initial=-1.0)
        return jnp.stack([episode.valid.sum(), last])

    agent = MAPElites(
        behavior=length, behavior_low=(0.5, 0.5), behavior_high=(4.5, 4.5), cells=(4, 4), net_arch=[],
        population_size=8, n_eval_episodes=2,
    ).on(Lasting(), loop=loop, seed=0)  # fmt: skip
    seen = []
    agent.learn(8 * 2 * 4 * 20, progress=False, callbacks=lambda _, metrics: seen.append(metrics))
    archive = agent.state.search
    filled = np.isfinite(np.asarray(archive.fitness)).reshape(4, 4)
    np.testing.assert_array_equal(filled, filled & np.eye(4, dtype=bool))
    assert filled[0, 0]
    assert filled[3, 3]
    np.testing.assert_array_equal(archive.fitness[::5][filled.diagonal()], 1 + np.flatnonzero(filled.diagonal()))
    assert max(metrics["failed_members"] for metrics in seen) > 0


def test_environments_come_in_any_order():
    learner = MAPElites(**TINY, population_size=2, n_eval_episodes=2).on(Ridge(), seed=0).trainer.learner
    state, learn = learner.init(jax.random.key(0)), jax.jit(learner.learn)

    def rollout(order, **more):
        action = np.zeros((2, 4, 2), np.float32)
        action[..., 0] = np.array([0.1, -0.5, 0.3, -0.9])
        reward = np.array([[0.0, 1.0, 2.0, 3.0]] * 2, np.float32)
        nothing = np.zeros((3, 4), np.bool_)
        obs = np.ones((3, 4, 1), np.float32)
        return Rollout(obs, nothing, action[:, order], reward[:, order], nothing[:-1], **more)

    after = learn(state, rollout(np.arange(4)), jax.random.key(0))[0].search
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(after.fitness)), [1, 4])
    np.testing.assert_allclose(after.behavior[np.array([4, 1]), 0], [0.2, -0.7], rtol=1e-6)
    np.testing.assert_allclose(after.fitness[np.array([4, 1])], [2.0, 4.0])
    order = np.array([2, 0, 3, 1], np.int32)
    mixed = learn(state, rollout(order, env_id=order), jax.random.key(0))[0].search
    for one, other in zip(after, mixed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_kept_and_loaded(tmp_path):
    agent = MAPElites(**TINY, population_size=8).on(Ridge(), seed=0).learn(8 * 2 * 3, progress=False)
    path = agent.save(tmp_path / "elites")
    with pytest.raises(CheckpointError, match=r"behavior: .*the function 'first_action'.*behavior=first_action"):
        load(path)
    again = load(path, behavior=first_action, env=Ridge())
    assert again.algorithm == agent.algorithm
    np.testing.assert_array_equal(again.predict(np.ones(1, np.float32)), agent.predict(np.ones(1, np.float32)))
    for one in (agent, again):
        one.learn(8 * 2 * 3, progress=False)
    for one, other in zip(agent.state.search, again.state.search, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_a_file_cannot_hold():
    assert MAPElites(**TINY).unsaved() == {"behavior": first_action}
    data = json.loads(json.dumps(MAPElites(**TINY).to_json()))
    assert MAPElites.from_json(data, behavior=first_action) == MAPElites(**TINY)
    assert MAPElites(behavior_low=np.array([0.0, 1.0]), behavior_high=(1, 2)).behavior_low == (0.0, 1.0)


def test_goes_on_from_a_gradient_learner():
    taught = PPO(net_arch=[8], squash_output=True).on(Ridge(), seed=0)
    agent = MAPElites(**{**TINY, "net_arch": [8]}).on(Ridge(), seed=0).start_from(taught)
    obs = np.ones(1, np.float32)
    np.testing.assert_allclose(agent.predict(obs), taught.predict(obs), rtol=1e-6)
    assert not np.isfinite(agent.state.search.fitness).any()
    np.testing.assert_array_equal(agent.state.search.weights[0], agent.state.search.weights[-1])


def test_pictures_of_one_number_and_of_an_empty_archive(tmp_path):
    for settings in (TINY, SQUARE):
        agent = MAPElites(**settings, population_size=8).on(Ridge(), seed=0)
        begun = agent.pictures(tmp_path / "begun")[0].read_bytes()
        agent.learn(8 * 2 * 2, progress=False, run=tmp_path / str(len(settings["cells"])))
        later = (tmp_path / str(len(settings["cells"])) / "archive.png").read_bytes()
        assert begun[:4] == later[:4] == b"\x89PNG"
        assert begun != later


def test_the_map_has_the_first_number_to_the_right():
    axes = Figure().subplots()
    fitness = np.array([[1.0, 2.0, -np.inf], [-np.inf, -np.inf, 7.0]])
    draw_archive(axes, ["red"], fitness.ravel(), (2, 3), (0.0, -3.0), (4.0, 0.0))
    assert axes.get_title() == "3 of 6 cells filled"
    (mesh,) = axes.collections
    np.testing.assert_array_equal(
        mesh.get_array().filled(np.nan).reshape(3, 2).T, np.where(fitness < 0, np.nan, fitness)
    )
    assert (*axes.get_xlim(), *axes.get_ylim()) == (0.0, 4.0, -3.0, 0.0)


def shapeless(episode):
    return episode.reward.sum()


def untraceable(episode):
    return [float(episode.reward[0])]


def no_numbers(episode):
    return "far"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm_obs": True}, "norm_obs=True cannot be"),
        ({"behavior_low": (-1, -1)}, r"as many numbers .*not \(-1.0, -1.0\), \(1.0,\) and \(8,\)"),
        ({"behavior_high": None}, "as many numbers"),
        ({"cells": (8, 8)}, "as many numbers"),
        ({"cells": (8.5,)}, r"cells\[0\] must be a whole number"),
        ({"cells": (0,)}, r"cells\[0\] must be a whole number of at least 1"),
        ({"cells": 8}, "cells must be a tuple"),
        ({"behavior_low": ()}, "behavior_low must be a tuple"),
        ({"behavior_low": (np.nan,)}, r"behavior_low\[0\] must be a finite number"),
        ({"behavior_low": (1,)}, r"behavior_low\[0\]=1 must be less than behavior_high\[0\]=1"),
        ({"behavior": "speed"}, "behavior must be a function, not 'speed'"),
        ({"behavior": None}, r"(?s)needs behavior: .*def behavior\(episode\)"),
        ({"behavior_low": None, "behavior_high": None}, r"(?s)needs behavior_low: .*def behavior\(episode\)"),
        ({"behavior": shapeless}, r"behavior=shapeless returns an array of shape \[\] .*expected \[1\]"),
        ({"behavior": both_actions}, r"behavior=both_actions returns an array of shape \[2\] .*expected \[1\]"),
        ({"behavior": untraceable}, r"(?s)behavior=untraceable failed .*action float32\[2, 2\], with Concretization"),
        ({"behavior": no_numbers}, "behavior=no_numbers failed"),
    ],
)
def test_what_cannot_be(changes, words):
    with pytest.raises(HyperparameterError, match=words):
        MAPElites(**{**TINY, **changes}).on(Ridge())


def test_no_elite_before_learning():
    agent = MAPElites(**TINY).on(Ridge())
    with pytest.raises(HyperparameterError, match="archive is empty"):
        agent.member([0.0])


def test_not_from_the_command_line():
    with pytest.raises(HyperparameterError, match="from Python only"):
        MAPElites.parse({"behavior": "first_action"})
    typed = MAPElites.parse({"behavior_low": "[-1, 0]", "behavior_high": "[1, 2]", "cells": "[4, 5]"})
    assert MAPElites(**typed).cells == (4, 5)
