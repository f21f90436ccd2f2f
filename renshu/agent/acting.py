"""Acting with what a trainer has learned: predictions, explanations, evaluation."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from renshu.agent.backends import make_backend
from renshu.agent.compatible import check_compatible
from renshu.agent.opponents import refuse_copies, reseated, seated
from renshu.agent.options import COUNT
from renshu.agent.trainer import Trainer, fit_spaces_for
from renshu.algorithms import migration
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError, SpaceError
from renshu.loops.evaluation import Evaluation
from renshu.ops.masks import batched_with_mask
from renshu.ops.spaces import batched
from renshu.types import PyTree, TimeStep


def predict(
    trainer: Trainer,
    observation: PyTree,
    action_mask: Any,
    deterministic: bool,
    carry: PyTree = None,
    first: Any = None,
    env_state: PyTree = None,
    search: bool = True,
) -> Any:
    """Choose the action for one observation, or actions `[B, ...]` for a batch; see `Agent.predict`."""
    obs, batch, single = _batched(trainer, observation, action_mask)
    state = _state(trainer, env_state, search, single)
    begins = _begins(carry)
    firsts = np.full(batch, begins) if first is None else np.broadcast_to(np.asarray(first, np.bool_), (batch,))
    before = trainer.learner.initial_carry(batch) if begins else carry
    actions, after = _choose(trainer, obs, firsts, before, deterministic, state)
    chosen = _alone(actions[0]) if single else actions
    return chosen if carry is None else (chosen, after)


def _begins(carry: PyTree) -> bool:
    """Tell whether a memory is that before an episode."""
    return carry is None or (isinstance(carry, tuple) and not carry)


def _alone(action: Any) -> Any:
    """Let a single number explain itself where it is unpacked, as the pair that Stable-Baselines3 returns would be."""
    return _number_class(type(action))(action) if isinstance(action, np.integer | np.floating) else action


@cache
def _number_class(kind: type) -> type:
    def written(self: Any) -> str:
        return repr(kind(self))

    return type(kind.__name__, (kind,), {"__iter__": migration.refuse_unpacking, "__repr__": written})


class Player:
    """A policy for one environment that remembers its episode; see `Agent.player`. plans: it wants an `env_state`."""

    def __init__(self, trainer: Trainer, deterministic: bool) -> None:
        self._trainer, self._deterministic = trainer, deterministic
        self._carry = trainer.learner.initial_carry(1)
        self.plans = trainer.learner.needs.env_state

    def __call__(self, observation: PyTree, first: bool, env_state: PyTree = None) -> Any:
        """Choose the action for an observation."""
        trainer = self._trainer
        obs, _, _ = _batched(trainer, observation)
        state = _state(trainer, env_state, True, single=True)
        actions, self._carry = _choose(trainer, obs, np.array([first]), self._carry, self._deterministic, state)
        return actions[0]


def explain(
    trainer: Trainer, observation: PyTree, action_mask: Any, env_state: PyTree = None, carry: PyTree = None
) -> dict[str, np.ndarray]:
    """Explain the choice for an observation, or for a batch of them; see `Agent.explain`."""
    obs, batch, single = _batched(trainer, observation, action_mask)
    begins = _begins(carry)
    state = _state(trainer, env_state, env_state is not None, single)
    timestep = _seen(trainer, obs, np.full(batch, begins), state)
    with trainer.acting.use() as actor_state:
        before = trainer.learner.initial_carry(batch) if begins else carry
        found = trainer.programs.explain(actor_state, before, timestep)
    return {name: np.asarray(value)[0] if single else np.asarray(value) for name, value in found.items()}


def evaluate(
    trainer: Trainer,
    env: Any,
    *,
    count: int,
    episodes: int,
    deterministic: bool,
    seed: int | None,
    opponent: Any = None,
) -> Evaluation:
    """Run whole episodes apart from training; see `Agent.evaluate`. count: environments that step together."""
    backend, fitted = None, trainer.fitted
    if env is not None or opponent is not None:
        source = other_source(trainer, env, opponent, explore=not deterministic)
        backend = make_backend(source, None, loop=None, processes=False, timeout=trainer.timeout)
    try:
        if backend is not None:
            spec, name = backend.spec(), backend.source.name
            backend.check(trainer.learner)
            check_compatible(name, trainer.spec, spec)
            fitted = fit_spaces_for(trainer.algorithm, spec, trainer.space_config)
            check_compatible(name, trainer.fitted.spec, fitted.spec)
        return (backend or trainer.backend).evaluate(
            trainer.programs,
            trainer.acting.copied().actor_state,
            fitted.decode_action,
            count=count,
            episodes=episodes,
            deterministic=deterministic,
            seed=trainer.env_seed(1) if seed is None else seed,
            key=trainer.keys[3],
        )
    finally:
        if backend is not None:
            backend.close_own()


class Snapshot:
    """Acting copy of an agent, refreshed at each update of its training as long as it exists. Made by `agent.snapshot`.

    Any thread may use it, while another trains: a server that plays, a window that shows. It never waits for an update.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        trainer.acting.watch(self)

    @property
    def steps(self) -> int:
        """Environment steps learned from by what it acts with now."""
        return self._trainer.acting.copied().steps

    def predict(self, observation: PyTree, action_mask: Any = None, *, deterministic: bool = True) -> Any:
        """Choose actions; see `Agent.predict`."""
        return predict(self._trainer, observation, action_mask, deterministic)

    def player(self, *, deterministic: bool = True) -> Player:
        """Make a policy for one environment; see `Agent.player`. It goes on with each refreshed copy."""
        return Player(self._trainer, deterministic)

    def explain(self, observation: PyTree, action_mask: Any = None) -> dict[str, np.ndarray]:
        """Explain a choice; see `Agent.explain`."""
        return explain(self._trainer, observation, action_mask)

    def evaluate(self, episodes: int = 20, *, deterministic: bool = True, seed: int | None = None) -> Evaluation:
        """Run whole episodes with the copy of now; see `Agent.evaluate`."""
        count, episodes = min(10, COUNT.check("episodes", episodes)), int(episodes)
        options = {"count": count, "episodes": episodes, "deterministic": deterministic, "seed": seed}
        return evaluate(self._trainer, None, **options)


def other_source(trainer: Trainer, env: Any, opponent: Any = None, *, explore: bool = False) -> EnvSource:
    """Take another environment, with masks if the trainer's learner uses them; None: its own, with another opponent.

    explore: an agent that is the opponent acts as in its training.
    """
    refuse_copies(opponent)
    if env is None:
        source = reseated(trainer.backend.source, trainer.algorithm, opponent, explore=explore)
    else:
        source = seated(EnvSource.of(env), trainer.algorithm, opponent, explore=explore)
    return source.with_masks(trainer.space_config.masks)


def hand_over(trainer: Trainer, other: Trainer) -> None:
    """Give another trainer a copy of what one has learned; close it and raise SpaceError where that does not fit."""
    try:
        check_compatible(other.name, trainer.spec, other.spec)
        check_compatible(other.name, trainer.fitted.spec, other.fitted.spec)
    except SpaceError:
        other.close()
        raise
    other.transfer(trainer)


def start_from(trainer: Trainer, other: Trainer) -> None:
    """Take over another agent's weights, and the statistics that they see observations by.

    Raises HyperparameterError where the same weights would be another policy here.
    """
    squashed = ("squash_output",) if isinstance(trainer.fitted.spec.action_space, spaces.Box) else ()
    for name in ("norm_obs", *squashed):
        ours, theirs = (getattr(one.algorithm, name, False) for one in (trainer, other))
        if ours != theirs:
            raise HyperparameterError(f"{name} is {ours} here and {theirs} there: give both the same")
    state = trainer.learner.start_from(trainer.state, other.learner.actor_state(other.state).params)
    if getattr(trainer.algorithm, "norm_obs", False):
        state = state._replace(obs_stats=jax.tree.map(jax.numpy.copy, other.state.obs_stats))
    trainer.state = state


def _batched(trainer: Trainer, observation: PyTree, action_mask: Any = None) -> tuple[PyTree, int, bool]:
    if trainer.fitted.spec.masks:
        return batched_with_mask(trainer.spec.observation_space, observation, action_mask)
    if action_mask is not None:
        raise SpaceError(f"this agent learned without masks of its {trainer.spec.action_space} actions: give none")
    return batched(trainer.spec.observation_space, observation)


def _state(trainer: Trainer, env_state: PyTree, search: bool, single: bool) -> PyTree:
    """Return states `[B, ...]` for a learner that plans in them, () for others.

    Raises SpaceError where it has none, and is not asked to do without.
    """
    if env_state is None:
        if trainer.learner.needs.env_state and search:
            raise SpaceError(
                f"{type(trainer.algorithm).__name__} plans in the environment's own state, of which an observation is "
                "a part only: give it as env_state=, or ask for the network's own choice by search=False. "
                "evaluate(...) plays whole episodes"
            )
        return ()
    if not trainer.learner.needs.env_state or not search:
        raise SpaceError("env_state= is for algorithms that plan in it, with search=True: leave it out")
    if trainer.fitted.spec.model is None:
        raise SpaceError("this agent was loaded without its environment, in which it plans: load(path, env=...)")
    return jax.tree.map(lambda x: x[None], env_state) if single else env_state


def _seen(trainer: Trainer, obs: PyTree, first: np.ndarray, state: PyTree) -> TimeStep:
    spec = trainer.fitted.spec
    to_play = jax.vmap(spec.model.to_play)(state) if spec.players > 1 and jax.tree.leaves(state) else ()
    return TimeStep(obs, first, env_state=state, to_play=to_play)


def _choose(
    trainer: Trainer, obs: PyTree, first: np.ndarray, carry: PyTree, deterministic: bool, state: PyTree
) -> tuple[Any, PyTree]:
    act = trainer.programs.act_greedy if deterministic else trainer.programs.act
    with trainer.acting.use() as actor_state:
        chosen = act(actor_state, carry, _seen(trainer, obs, first, state), *next(trainer.prediction_keys))
    return trainer.fitted.decode_action(np.asarray(chosen.action)), chosen.carry
