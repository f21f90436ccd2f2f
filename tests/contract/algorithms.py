"""Every algorithm with tiny settings in a fitting environment, and the trainings that its questions share."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu import Agent
from renshu.algorithms import registry
from renshu.algorithms.hyperparameters import kind_of
from renshu.envs.device import DeviceEnv, Step
from tests.loops.tiny import copied

NUM_ENVS, SEED = 2, 3
FEW = 30
"""Rollouts before the first look: some hundred steps, of which a memory holds the last."""
TARGET = 1_500
"""Steps at which schedules end in that part of a training."""
LEARNED = 12_000
"""Steps within which an algorithm learns what there is to learn, unless its case says fewer."""


# --- environments -----------------------------------------------------------------------------------------------------


class Signs(DeviceEnv):
    """Two signs, new in each step: of their four pairs each wants an action of its own. Episodes end by chance.

    A subclass has the reward, and `score`: the mean reward of actions `[4, ...]` in the four contexts, which is
    `enough` only if they depend on both signs.
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    max_episode_steps = 4
    contexts = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)

    def reset(self, key):
        signs = jax.random.rademacher(key, (2,), jnp.float32)
        return signs, signs

    def step(self, state, action, key):
        key_reset, key_end = jax.random.split(key)
        after, obs = self.reset(key_reset)
        return Step(after, obs, self.reward(state, action), jax.random.uniform(key_end) < 0.25)


class Points(Signs):
    """The nearer to half the signs, the better."""

    action_space, enough = spaces.Box(-1.0, 1.0, (2,), np.float32), 0.75

    def reward(self, state, action):
        return 1.0 - jnp.abs(action - 0.5 * state).mean()

    def score(self, action):
        return 1.0 - np.abs(action - 0.5 * self.contexts).mean()


class Choices(Signs):
    """The right one of four actions gives 1. One is not allowed: it gives NaN, which no loop lets pass."""

    action_space, enough = spaces.Discrete(4), 0.9
    right = np.array([3, 2, 1, 0])  # in the four contexts
    masks = (right[:, None] - np.arange(4)) % 4 < 3

    def reward(self, state, action):
        reward = (action == jnp.asarray(self.right)[context(state)]).astype(jnp.float32)
        return jnp.where(self.action_mask(state)[action], reward, jnp.nan)

    def action_mask(self, state):
        return jnp.asarray(self.masks)[context(state)]

    def score(self, action):
        return np.mean(action == self.right)


def context(state):
    """Number of a pair of signs among the contexts."""
    return 2 * (state[0] > 0).astype(jnp.int32) + (state[1] > 0).astype(jnp.int32)


# --- settings ---------------------------------------------------------------------------------------------------------


def rate(progress_remaining):
    """A learning rate that a test sets by the counters alone, in a program that is compiled already."""
    return jnp.select([progress_remaining > x for x in (0.2, 0.1, 0.04)], [RATE, 0.0, jnp.nan], 3e38)


RATE = 0.01
STEADY, STILL, WRONG, HUGE = 0.9, 0.15, 0.05, 0.02
"""Progress that remains where the learning rate is RATE, 0, NaN, and more than any number can be multiplied by."""


@dataclass(frozen=True)
class Case:
    """An algorithm of the registry with tiny settings, and an environment: `Choices` has masks, `Points` has none.

    Many options are on at once, so that the hyperparameters that may be traced are numbers that matter. recorded: by
    how much what acting records may differ between two programs of the same learner. steps: it has a learning rate.
    within: environment steps within which it learns what there is to learn.
    """

    algorithm: str
    env: DeviceEnv
    settings: dict[str, Any]
    recorded: float = 1e-5
    steps: bool = True
    within: int = LEARNED


# Adam knows no scale: of networks apart the weight of a loss would hardly matter.
NORMED = {"norm_obs": True, "norm_reward": True, "clip_obs": 0.5, "clip_reward": 0.5, "share_features_extractor": True}
ON_POLICY = {"n_steps": 8, "net_arch": [8], "gamma": 0.5}
TABLE = {"n_steps": 4, "obs_bins": 2, "gamma": 0.5, "exploration_fraction": 0.9}
REPLAY = {
    "buffer_size": 128,
    "batch_size": 16,
    "learning_starts": 16,
    "train_freq": 2,
    "net_arch": [8],
    "gamma": 0.5,
    "prioritized": True,
    "prioritized_replay_beta": 0.5,
}
VALUES = {
    **REPLAY,
    "target_update_interval": 16,
    "tau": 0.5,
    "exploration_fraction": 0.9,
    "munchausen": True,
    "munchausen_tau": 0.1,
    "munchausen_clip": -0.2,
}
SEQUENCES = {
    **REPLAY,
    "train_freq": 4,
    "sequence_length": 6,
    "burn_in": 2,
    "n_steps": 2,
    "target_update_interval": 16,
    "recurrent": "gru",
    "recurrent_size": 8,
    "exploration_base": 0.9,
    "exploration_exponent": 1.0,
}
NOISY = {
    **REPLAY,
    "tau": 0.05,
    "action_noise": "normal",
    "action_noise_std": 0.5,
    "target_policy_noise": 0.5,
    "target_noise_clip": 0.3,
}
OF_EACH = {"exploration_base": 0.5, "exploration_exponent": 1.0, "train_freq": 4}
AUTO, FIXED = {**REPLAY, "target_entropy": -1.0}, {**REPLAY, "ent_coef": 0.1}
MINIBATCHES = {**ON_POLICY, "batch_size": 8}
# Without a lag all ratios are 1: bounds below that matter.
CORRECTED = {"ent_coef": 0.01, "rho_bar": 0.9, "c_bar": 0.8}

PLANNED = {**REPLAY, "gradient_steps": 1, "num_simulations": 4}
IMAGINED = {
    **PLANNED,
    "buffer_size": 1_024,
    "learning_starts": 48,
    "train_freq": 4,
    "gradient_steps": 1,
    "num_unroll_steps": 2,
    "n_steps": 2,
    "target_update_interval": 16,
    "support": 4,
    "latent": 16,
    "net_arch": [16],
    "reward_coef": 5.0,
    "vf_coef": 2.0,
    "dirichlet_alpha": 1.0,
    "dirichlet_fraction": 0.5,
    "ent_coef": 0.1,
    "prioritized_replay_alpha": 1.0,
}
EVOLVED = {"net_arch": [], "n_eval_episodes": 2, "norm_obs": True}
GROWN = {
    "n_eval_episodes": 6,
    "norm_obs": True,
    "population_size": 8,
    "max_species": 3,
    "min_species_size": 1,
    "elitism": 1,
    "survival_threshold": 0.9,
    "max_hidden": 5,
    "node_add_prob": 0.3,
    "initial_connection": 0.5,
    "conn_add_prob": 0.5,
    "enable_rate": 0.1,
    "compatibility_threshold": 1.0,
    "weight_mutate_power": 0.3,
}
REMEMBERED = {
    **GROWN,
    "recurrent": True,
    "initial_connection": 1.0,
    "max_hidden": 3,
    "node_add_prob": 0.1,
    "conn_add_prob": 0.2,
    "weight_init_stdev": 0.5,
    "weight_mutate_power": 0.2,
}


def lean(episode):
    """Return the mean of the actions, or of the first number of each: [1]."""
    action = episode.action.astype(jnp.float32).reshape(len(episode.action), -1)
    return jnp.mean(action[:, :1], axis=0, where=episode.valid[:, None])


ARCHIVED = {
    "net_arch": [],
    "n_eval_episodes": 12,
    "population_size": 8,
    "behavior": lean,
    "sigma_iso": 0.2,
    "sigma_line": 0.3,
    "cells": [4],
}
RANGED = 2e-4
"""Search with Gumbel divides differences of values by the range that they have, and policies are exponents of that."""

LEARNS_NOTHING = {"MCTS"}
"""Algorithms that only plan, of which there is nothing to ask here: see tests/algorithms/planning."""

CASES: dict[str, Case] = {
    "A2C": Case("A2C", Choices(), {**ON_POLICY, **NORMED, "ent_coef": 0.01}),
    "APPO": Case("APPO", Choices(), {**MINIBATCHES, **NORMED, **CORRECTED, "n_epochs": 2, "clip_range": 0.05}),
    "ARS": Case("ARS", Choices(), {**EVOLVED, "n_delta": 2, "n_top": 1, "delta_std": 0.3, "alive_bonus_offset": -0.1}),
    "ARS-box": Case(  # squashed: of what is linear in the weights the size of steps takes no part in the update
        "ARS",
        Points(),
        {**EVOLVED, "n_delta": 2, "zero_policy": False, "squash_output": True, "alive_bonus_offset": -0.1},
    ),
    "AlphaZero": Case("AlphaZero", Choices(), PLANNED),
    "ApeX": Case("ApeX", Choices(), {**VALUES, **OF_EACH, "exploration_initial_eps": 0.8}),
    "ApeXDDPG": Case("ApeXDDPG", Points(), {**NOISY, **OF_EACH}),
    "CrossQ": Case("CrossQ", Points(), AUTO),
    "CrossQ-fixed": Case("CrossQ", Points(), FIXED),
    "DDPG": Case("DDPG", Points(), NOISY),
    "DQN": Case("DQN", Choices(), VALUES),
    "DynaQ": Case("DynaQ", Choices(), {**TABLE, "planning_steps": 2}),
    "ES": Case("ES", Choices(), {**EVOLVED, "population_size": 4, "sigma": 0.3}),
    "ES-box": Case("ES", Points(), {**EVOLVED, "population_size": 4, "sigma": 0.3, "weight_decay": 0.01}),
    "ExpectedSARSA": Case("ExpectedSARSA", Choices(), TABLE),
    "GumbelAlphaZero": Case("GumbelAlphaZero", Choices(), PLANNED),
    "GumbelMuZero": Case(  # few updates before the first look: each makes differences of the search larger
        "GumbelMuZero", Choices(), {**IMAGINED, "ent_coef": 0.5, "learning_starts": 96}, RANGED
    ),
    "IMPALA": Case("IMPALA", Choices(), {**ON_POLICY, **NORMED, **CORRECTED}),
    "MAPElites": Case("MAPElites", Choices(), {**ARCHIVED, "behavior_low": [0], "behavior_high": [3]}, steps=False),
    "MAPElites-box": Case("MAPElites", Points(), {**ARCHIVED, "behavior_low": [-1], "behavior_high": [1]}, steps=False),
    "MuZero": Case("MuZero", Choices(), IMAGINED, within=6_000),
    "NEAT": Case("NEAT", Choices(), GROWN, steps=False),
    "NEAT-recurrent": Case("NEAT", Points(), REMEMBERED, steps=False),
    "PPO": Case("PPO", Choices(), {**MINIBATCHES, **NORMED, "ent_coef": 0.01, "n_epochs": 2, "clip_range": 0.05}),
    "PPO-recurrent": Case("PPO", Choices(), {**MINIBATCHES, **NORMED, "n_epochs": 2, "recurrent": "gru"}),
    "PQN": Case("PQN", Choices(), {**MINIBATCHES, "exploration_fraction": 0.9}),
    "QLearning": Case("QLearning", Choices(), TABLE),
    "QRDQN": Case("QRDQN", Choices(), {**VALUES, "n_quantiles": 5}),
    "R2D2": Case("R2D2", Choices(), SEQUENCES),
    "Rainbow": Case("Rainbow", Choices(), {**VALUES, "noisy": False, "n_atoms": 11, "v_min": -1.0, "v_max": 3.0}),
    "SAC": Case("SAC", Points(), AUTO),
    "SAC-discrete": Case("SAC", Choices(), FIXED),
    "SARSA": Case("SARSA", Choices(), TABLE),
    "SampledMuZero": Case(
        "SampledMuZero",
        Points(),
        {**IMAGINED, "support": 1, "num_sampled_actions": 16, "ent_coef": 0.01},
        RANGED,
        within=6_000,
    ),
    "StochasticMuZero": Case("StochasticMuZero", Choices(), {**IMAGINED, "num_codes": 2}, within=4_000),
    "TD3": Case("TD3", Points(), NOISY),
    "TQC": Case("TQC", Points(), {**AUTO, "n_quantiles": 5}),
    "TQC-fixed": Case("TQC", Points(), {**FIXED, "n_quantiles": 5}),
}
"""One for each line of the registry, and more where one value excludes another or two kinds of actions differ much."""


# --- trainings that questions share -----------------------------------------------------------------------------------


def advance(agent: Agent, iterations: int) -> dict[str, float]:
    """Train for so many rollouts. Returns the metrics of the last."""
    loop, size = agent.trainer.start_loop(nullcontext), agent.trainer.learner.needs.steps * agent.spec.num_envs
    goal, metrics = agent.trainer.iteration + iterations, {}
    while agent.trainer.iteration < goal:
        metrics = loop.advance((goal - agent.trainer.iteration) * size).metrics
    return metrics


def put(agent: Agent, state: Any, progress_remaining: float) -> None:
    """Give an agent a copy of a state, in the middle of a training of which so much remains."""
    steps, whole = int(state.counters.steps), 1_000_000
    start = steps - int((1 - progress_remaining) * whole)
    counters = state.counters._replace(start=np.int32(start), target=np.int32(start + whole))
    agent.trainer.state = jax.tree.map(jnp.array, state._replace(counters=counters))


class Trained:
    """A case, trained in both loops; what has to be compiled is made when first asked for.

    values: the hyperparameters that may be traced, as far as they are numbers here; left_open: the names of the others.
    changed: another number for each of the values.
    """

    def __init__(self, case: Case) -> None:
        self.env, self.kind, self.within = case.env, registry.algorithm(case.algorithm), case.within
        self.schedules = {"learning_rate": rate} if case.steps else {}
        self.algorithm = self.kind(**case.settings, **self.schedules)
        fields = [f.name for f in dataclasses.fields(self.kind) if getattr(kind_of(f), "traceable", False)]
        given = {field: getattr(self.algorithm, field) for field in fields} | dict.fromkeys(self.schedules, RATE)
        self.values = {field: float(x) for field, x in given.items() if isinstance(x, int | float)}
        self.changed = {field: 0.7 * value or 0.1 for field, value in self.values.items()}
        self.left_open = set(fields) - set(self.values)

    def start(self, loop: str) -> Agent:
        """Make an agent at the beginning of its training."""
        num_envs = max(NUM_ENVS, self.algorithm.default_num_envs)
        agent = self.algorithm.on(self.env, num_envs=num_envs, seed=SEED, loop=loop)
        agent.trainer.set_target(TARGET)
        return agent

    def greedy(self, agent: Agent) -> np.ndarray:
        """Return the greedy actions in the four contexts."""
        masks = (self.env.masks.astype(np.int8),) if self.env.gives_masks else ()
        # A search would find the right actions before anything is learned.
        return np.asarray(agent.predict(self.env.contexts, *masks, **({"search": False} if agent.plans else {})))

    @cached_property
    def host(self) -> tuple[Agent, Any]:
        """The agent of the host loop, and a copy of its state after FEW rollouts."""
        agent = self.start("host")
        advance(agent, FEW)
        return agent, copied(agent.state)

    @cached_property
    def compiled(self) -> Course:
        """The course of a training in the compiled loop."""
        agent = self.start("compiled")
        first, untrained = copied(agent.state), self.greedy(agent)
        metrics = advance(agent, FEW)
        with TemporaryDirectory() as folder:
            content = agent.save(Path(folder) / "agent.safetensors", memory=True).read_bytes()
        few, greedy = copied(agent.state), self.greedy(agent)
        advance(agent, FEW)
        later = copied(agent.state)
        put(agent, later, STEADY)
        while agent.steps < self.within:
            advance(agent, 10)
        return Course(agent, metrics, first, few, later, untrained, greedy, self.greedy(agent), content)


@dataclass(frozen=True)
class Course:
    """Course of a training: states before it, after FEW rollouts and after as many again; greedy actions on the way.

    agent: as the last question left it; `put` gives it one of the states. metrics: of the last of the FEW rollouts.
    untrained, greedy, trained: actions before the training, after FEW rollouts, and at its end. content: of a file
    written after FEW rollouts.
    """

    agent: Agent
    metrics: dict[str, float]
    first: Any
    few: Any
    later: Any
    untrained: np.ndarray
    greedy: np.ndarray
    trained: np.ndarray
    content: bytes


@lru_cache(maxsize=3)  # a process may hold so many programs and no more
def trained(case: str) -> Trained:
    """Return the trainings of a case, the same ones to all questions."""
    return Trained(CASES[case])
