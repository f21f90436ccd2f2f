"""Monte-Carlo tree search, UCT (Kocsis & Szepesvari 2006), with random playouts: it plans and learns nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from renshu.algorithms.base import OBSERVATIONS, Algorithm, Learner
from renshu.algorithms.hyperparameters import integer, number
from renshu.algorithms.planning.search import UCT, Found, Node, library, model_step, playout, roots, search
from renshu.errors import HyperparameterError, SpaceError
from renshu.ops.masks import mask_for_display, mask_values
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, Needs, PyTree, Rollout, TimeStep


@dataclass(frozen=True, kw_only=True)
class MCTS(Algorithm):
    """Choose actions by search in the environment's own model, judging positions by how random play ends from there."""

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"discrete"}), masks=True, players=True, model=True
    )

    num_simulations: int = integer(100, "positions that a search looks at before each move", least=1)
    c: float = number(2**0.5, "how much the search explores: weight of the confidence bound", least=0)
    gamma: float = number(1.0, "discount factor", least=0, most=1)
    playout_steps: int = integer(1_000, "steps after which a random playout is cut off", least=1)

    def build(self, spec: EnvSpec) -> MCTSLearner:
        """Bind MCTS to an environment. Raises HyperparameterError for games of more than two players."""
        return MCTSLearner(self, spec)


class State(NamedTuple):
    """State of a learner that learns nothing."""

    params: PyTree
    counters: Counters


class MCTSLearner(Learner[MCTS, State]):
    """Search, and no learning."""

    idle_metrics = frozenset()

    def __init__(self, config: MCTS, spec: EnvSpec) -> None:
        if spec.players > 2:
            raise HyperparameterError(f"MCTS plans for one player or two; {spec.id or 'this game'} has {spec.players}")
        library()
        super().__init__(config, spec)
        self.needs = Needs(steps=16, max_lag=None, env_state=True)
        self.actions = int(spec.action_space.n)  # type: ignore[attr-defined]

    def init(self, key: Key) -> State:
        return State({}, Counters.zeros())

    def actor_state(self, state: State) -> PyTree:
        return state.params

    def judge(self, params: PyTree, key: Key, obs: PyTree, node: Node) -> tuple[Array, Array]:
        """Return even logits `[B, A]`, very low where not allowed, and the returns of a random playout `[B]`."""
        mask, shape = self.split(obs)[1], (len(node.ended), self.actions)

        def legal_in(obs: PyTree) -> Array:
            mask = self.split(obs)[1]
            return jnp.ones(shape, jnp.bool_) if mask is None else mask

        most = self.config.playout_steps
        value = playout(self.spec.model, node, legal_in(obs), legal_in, key, self.config.gamma, most)
        return mask_values(jnp.zeros(shape), mask), value

    def act(self, acting: PyTree, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        return ActorOutput(self._find(timestep, key).action, carry)

    def _find(self, timestep: TimeStep, key: Key) -> Found:
        if not jax.tree.leaves(timestep.env_state):
            raise SpaceError(
                "MCTS has no network to choose by: it searches from the environment's own state, so give env_state="
            )
        key_root, key_search = jax.random.split(key)
        root = roots(timestep.env_state, len(timestep.first))
        logits, value = self.judge({}, key_root, timestep.obs, root)
        return search(
            UCT,
            {},
            key_search,
            logits,
            value,
            root,
            model_step(self.spec.model, self.judge, self.config.gamma),
            simulations=self.config.num_simulations,
            mask=self.split(timestep.obs)[1],
            explore=False,
            c=self.config.c,
        )

    def explain(self, acting: PyTree, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return shares of visits, values and visits of the actions `[N, A]`, and the value of the root `[N]`."""
        found = self._find(timestep, jax.random.key(0))
        values = mask_for_display(jnp.where(found.visits > 0, found.values, jnp.nan), self.split(timestep.obs)[1])
        return {"search_policy": found.policy, "action_values": values, "visits": found.visits, "value": found.value}

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        return state._replace(counters=state.counters.after(rollout)), {}
