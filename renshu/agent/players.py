"""Agents as competitors in the arena."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from renshu.agent.compatible import check_game
from renshu.agent.opponents import refuse_copies
from renshu.agent.trainer import Trainer
from renshu.arena.match import Result, match
from renshu.arena.person import Person
from renshu.arena.players import Competitor, Pure, View
from renshu.envs.device import DeviceEnv
from renshu.envs.seats import game_of
from renshu.errors import CheckpointError, HyperparameterError, SpaceError
from renshu.loops.programs import Programs
from renshu.ops.rows import choose
from renshu.types import MASK, OBSERVATION, PyTree, TimeStep

if TYPE_CHECKING:
    from renshu.agent.agent import Agent


def agent_competitor(
    agent: Agent, *, deterministic: bool = True, simulations: int | None = None, name: str | None = None
) -> AgentCompetitor:
    """Let an agent play in the arena, as it is at each move; it may go on learning meanwhile.

    deterministic: its greedy actions; otherwise they are drawn as in training. simulations: positions that it looks at
    before a move, in place of its own `num_simulations`. name: in tables; None is its algorithm's.

    Raises HyperparameterError for simulations where it does not plan, CheckpointError where it plans and has no
    environment to plan in; SpaceError, naming both, when it sits down at another game than its own.
    """
    return AgentCompetitor(agent.trainer, deterministic, simulations, name or type(agent.algorithm).__name__.lower())


def play(
    agent: Agent,
    against: Any,
    games: int | None,
    *,
    seed: int,
    openings: int | None,
    simulations: int | None,
    deterministic: bool,
) -> Result:
    """Let an agent play against another in the game that it has learned; see `Agent.play`."""
    refuse_copies(against)
    model = agent.trainer.spec.model
    if model is None:  # after loading it is made when first needed
        model = agent.trainer.backend.source.plain_device
    game = None if model is None else game_of(model)
    if game is None or game.players < 2:
        raise SpaceError(f"{agent.name} is no game of two players that can be played here: evaluate(...) is for others")
    agents: list[Agent] = [one for one in (agent, against) if hasattr(one, "trainer")]
    planning = [one for one in agents if _plans(one)]

    def sits(one: Agent) -> AgentCompetitor:
        # Who does not plan says so where nobody does.
        asked = simulations if _plans(one) or not planning else None
        return agent_competitor(one, deterministic=deterministic, simulations=asked)

    mine = sits(agent)
    other: Competitor
    if isinstance(against, Competitor):
        other = against
    elif isinstance(against, str) and against == "person":
        other = Person(game, explain=mine.explain)
    else:
        other = sits(agents[1]) if len(agents) > 1 else Pure(against)
    usual = (2, 0) if other.takes_back else (100, 2)
    games, openings = (given if given is not None else it for given, it in zip((games, openings), usual, strict=True))
    return match(game, mine, other, games, seed, openings=openings)


class AgentCompetitor(Competitor):
    """A competitor that is an agent; made by `agent_competitor`."""

    def __init__(self, trainer: Trainer, deterministic: bool, simulations: int | None, name: str) -> None:
        self.trainer, self.deterministic, self.name = trainer, deterministic, name
        self.learner, self.programs = trainer.learner, trainer.programs
        if simulations is not None:
            config, plain = self.learner.config, type(trainer.algorithm).__name__
            if not hasattr(config, "num_simulations"):
                raise HyperparameterError(f"simulations={simulations}: {plain} does not plan; leave them out")
            self.learner = dataclasses.replace(config, num_simulations=simulations).build(trainer.fitted.spec)
            self.programs = Programs(self.learner)
        if self.learner.needs.env_state and trainer.spec.model is None:
            raise CheckpointError(
                f"{name} plans in its environment, which no file holds: give it, as in renshu.load(path, env=game)"
            )
        self._keep = jax.jit(lambda mine, new, old: jax.tree.map(lambda a, b: choose(mine, a, b), new, old))
        self._carry: PyTree = ()
        self._key, self._moves = jax.random.key(0), 0

    def check(self, game: DeviceEnv) -> None:
        """Raise SpaceError where this is not the game that the agent has learned."""
        check_game(self.trainer, self.name, game)

    def begin(self, count: int, seed: int) -> None:
        """Begin games with new memories."""
        self._carry, self._key, self._moves = self.learner.initial_carry(count), jax.random.key(np.uint32(seed)), 0

    def choose(self, view: View) -> np.ndarray:
        """Let the agent act in all games, and remember it in its own."""
        block, t = divmod(self._moves, self.learner.needs.steps)
        self._moves += 1
        act = self.programs.act_greedy if self.deterministic else self.programs.act
        with self.trainer.acting.use() as actor_state:
            keys = self.programs.keys(self._key, block)
            chosen = act(actor_state, self._carry, self._timestep(view), keys, t)
            action = np.asarray(chosen.action)
        self._carry = self._keep(view.mine, chosen.carry, self._carry)
        return np.asarray(self.trainer.fitted.decode_action(action), np.int32)

    def explain(self, view: View) -> dict[str, np.ndarray]:
        """Return what the agent thinks of positions: see `Agent.explain`; of a search also values and visits."""
        with self.trainer.acting.use() as actor_state:
            found = self.programs.explain(actor_state, self._carry_for(view), self._timestep(view))
            return {name: np.asarray(values) for name, values in found.items()}

    def _carry_for(self, view: View) -> PyTree:
        # Before its first move of a match it has no memory of this size.
        return self._carry if self._moves else self.learner.initial_carry(len(view.mine))

    def _timestep(self, view: View) -> TimeStep:
        legal = jnp.asarray(view.legal, jnp.int8)
        obs = {MASK: legal, OBSERVATION: view.obs} if self.trainer.space_config.masks else view.obs
        state = view.state if self.learner.needs.env_state else ()
        to_play = jnp.asarray(view.seat) if self.trainer.fitted.spec.players > 1 else ()
        return TimeStep(obs, jnp.asarray(view.first), env_state=state, to_play=to_play)


def _plans(agent: Agent) -> bool:
    return hasattr(agent.algorithm, "num_simulations")
