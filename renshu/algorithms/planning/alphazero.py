"""AlphaZero (Silver et al. 2018): a policy and a value that learn from search in the environment's own model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.hyperparameters import NetArch, ScheduleLike, choice, integer, layer_sizes, number, schedule
from renshu.algorithms.planning.search import GUMBEL, PUCT, Found, library, model_step, roots, search
from renshu.algorithms.replay_learner import ActorState, ReplayAlgorithm, ReplayLearner, State
from renshu.errors import HyperparameterError
from renshu.networks.planning import PolicyValueNetwork, is_board
from renshu.ops.masks import mask_for_display, mask_values, uniform_actions
from renshu.ops.returns import discounted_returns
from renshu.ops.spaces import dummy
from renshu.optim.train_state import Optimizers, TrainState
from renshu.replay.ring import Transitions
from renshu.types import Accepts, ActorOutput, Array, EnvSpec, Key, Metrics, Needs, PyTree, Rollout, TimeStep


@dataclass(frozen=True, kw_only=True)
class AlphaZero(ReplayAlgorithm):
    """Improve a policy by search, learn what the search found and how the game ended, and search with that again.

    It moves for both players of a game, and plans in games and other environments that are pure functions. An agent's
    `predict` has only the network's policy, unless it is given the environment's state.
    """

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"discrete"}), masks=True, players=True, model=True
    )

    learning_rate: ScheduleLike = schedule(1e-3, "step size of Adam", least=0, traceable=True)
    buffer_size: int = integer(50_000, "moves that the memory holds, of all games together", least=1)
    learning_starts: int = integer(1_000, "moves before the first gradient step", least=0)
    batch_size: int = integer(256, "moves drawn for one gradient step", least=1)
    gamma: float = number(1.0, "discount factor", least=0, most=1, traceable=True)
    train_freq: int = integer(16, "moves in each environment between two trainings", least=1)
    gradient_steps: int = integer(8, "gradient steps in a training; -1: as many as moves were collected", least=-1)
    num_simulations: int = integer(32, "positions that a search looks at before each move", least=1)
    search: str = choice(
        PUCT,
        'the search: "puct" (Silver 2018) or "gumbel" (Danihelka 2022), which needs few simulations',
        (PUCT, GUMBEL),
    )
    max_num_considered_actions: int = integer(16, "actions compared at the root by the search with Gumbel", least=1)
    c_puct: float = number(1.25, "how much the search explores: weight of the prior and the visits", least=0)
    dirichlet_alpha: float = number(0.3, "concentration of the noise on the prior at the root", above=0)
    dirichlet_fraction: float = number(0.25, "share of that noise", least=0, most=1)
    temperature: float = number(1.0, "visits to this power's inverse are chances of the moves in training", least=0)
    openings: int = integer(0, "most moves at the beginning of a game in training that are drawn at random", least=0)
    vf_coef: float = number(1.0, "weight of the value's loss", least=0, traceable=True)
    weight_decay: float = number(1e-4, "share by which weights shrink in a gradient step, times the step size", least=0)
    max_grad_norm: float | None = number(
        1.0, "gradients are scaled down to this norm; None: never", above=0, optional=True
    )
    n_blocks: int = integer(2, "residual blocks of the network, on boards", least=0)
    n_channels: int = integer(32, "channels of each, on boards", least=1)
    net_arch: NetArch = layer_sizes((64, 64), "widths of the hidden layers, on observations that are no boards")

    def build(self, spec: EnvSpec) -> AlphaZeroLearner:
        """Bind AlphaZero to an environment. Raises HyperparameterError for options that do not go together."""
        return AlphaZeroLearner(self, spec)


@dataclass(frozen=True, kw_only=True)
class GumbelAlphaZero(AlphaZero):
    """AlphaZero whose search improves the policy with few simulations (Danihelka et al. 2022)."""

    search: str = choice(GUMBEL, 'the search: "puct" or "gumbel"', (PUCT, GUMBEL))
    num_simulations: int = integer(16, "positions that a search looks at before each move", least=1)


class AlphaZeroLearner(ReplayLearner[AlphaZero]):
    """The network, the search that acts, and the loss on its results."""

    def __init__(self, config: AlphaZero, spec: EnvSpec) -> None:
        if spec.players > 2:
            raise HyperparameterError(
                f"{type(config).__name__} plans for one player or two; {spec.id or 'this game'} has {spec.players}"
            )
        unused = [name for name in ("elite_episodes", "reward_clipping") if getattr(config, name)]
        if unused or config.n_steps != 1:
            raise HyperparameterError(
                f"{type(config).__name__} has no {' and no '.join(unused or ['n_steps'])}: leave it out"
            )
        library()
        super().__init__(config, spec)
        self.needs = Needs(steps=config.train_freq, max_lag=None, env_state=True)
        self.convolves = is_board(spec.network_space)
        self.network = PolicyValueNetwork(
            space=spec.network_space,
            actions=int(spec.action_space.n),  # type: ignore[attr-defined]
            blocks=config.n_blocks,
            channels=config.n_channels,
            widths=config.net_arch.pi,
            bounded=spec.players > 1,
        )
        clip = optax.identity() if config.max_grad_norm is None else optax.clip_by_global_norm(config.max_grad_norm)
        adam = optax.chain(clip, optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay))
        self.optim = Optimizers({"network": adam}, guard=self.guards_each_step)

    def init_train(self, key: Key) -> TrainState:
        params = {"network": self.network.init(key, dummy(self.observation_space, 1))["params"]}
        return TrainState(params, {}, self.optim.init(params), jnp.int32(0))

    # --- acting -----------------------------------------------------------------------------------------------------

    def initial_carry(self, num_envs: int) -> PyTree:
        """Return the random moves that are left in each opening, `[N]` int32; () without openings."""
        return jnp.zeros(num_envs, jnp.int32) if self.config.openings else ()

    def judge(self, params: PyTree, obs: PyTree) -> tuple[Array, Array]:
        """Estimate logits `[B, A]`, very low where not allowed, and values `[B]` for the player to move."""
        seen, mask = self.split(obs)
        logits, value = self.network.apply({"params": params["network"]}, seen)  # type: ignore[misc]
        return mask_values(logits, mask), value

    def find(self, params: PyTree, timestep: TimeStep, key: Key, explore: bool) -> Found:
        """Search from N observations and the states that they are of."""
        config = self.config
        logits, value = self.judge(params, timestep.obs)
        step = model_step(self.spec.model, lambda params, _, obs, node: self.judge(params, obs), config.gamma)
        return search(
            config.search,
            params,
            key if explore else jax.random.key(0),  # between equals mctx draws lots
            logits,
            value,
            roots(timestep.env_state, len(timestep.first)),
            step,
            simulations=config.num_simulations,
            mask=self.split(timestep.obs)[1],
            explore=explore,
            considered=config.max_num_considered_actions,
            dirichlet_alpha=config.dirichlet_alpha,
            dirichlet_fraction=config.dirichlet_fraction,
            temperature=config.temperature,
            c_init=config.c_puct,
        )

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        if without_state(timestep):
            logits, value = self.judge(acting.params, timestep.obs)
            action = jax.random.categorical(key, logits) if explore else jnp.argmax(logits, axis=1)
            out = ActorOutput(action.astype(jnp.int32), carry, {"policy": jax.nn.softmax(logits), "value": value})
        else:
            found = self.find(acting.params, timestep, key, explore)
            out = ActorOutput(found.action, carry, {"policy": found.policy, "value": found.value})
        return self.opened(out, timestep, jax.random.fold_in(key, 1)) if explore and self.config.openings else out

    def opened(self, out: ActorOutput, timestep: TimeStep, key: Key) -> ActorOutput:
        """Move at random instead where a game is in its opening, as long as was drawn when it began."""
        key_length, key_move = jax.random.split(key)
        n = len(timestep.first)
        lengths = jax.random.randint(key_length, (n,), 0, self.config.openings + 1)
        left = jnp.where(timestep.first, lengths, out.carry)
        opening = left > 0
        at_random = uniform_actions(key_move, n, int(self.spec.action_space.n), self.split(timestep.obs)[1])  # type: ignore[attr-defined]
        action = jnp.where(opening, at_random, out.action)
        return ActorOutput(action, jnp.maximum(left - 1, 0), {**out.extras, "opening": opening})

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the network's `probabilities` [N, A] and `value` [N]; of a search also its policy, values, visits."""
        logits, value = self.judge(acting.params, timestep.obs)
        shown = {"probabilities": jax.nn.softmax(logits), "value": value}
        if without_state(timestep):
            return shown
        found = self.find(acting.params, timestep, jax.random.key(0), explore=False)
        values = mask_for_display(jnp.where(found.visits > 0, found.values, jnp.nan), self.split(timestep.obs)[1])
        return shown | {
            "search_policy": found.policy,
            "action_values": values,
            "visits": found.visits,
            "search_value": found.value,
        }

    # --- learning ---------------------------------------------------------------------------------------------------

    def observe(self, state: State, rollout: Rollout, key: Key) -> State:
        """Keep each position with the search's policy there, and the return of its player as the value to learn.

        A game that goes on beyond the rollout counts by the network's value of where it stands. After a random move the
        return says nothing of the position before it, which is worth what the search found.
        """
        last = jax.tree.map(lambda x: x[-1], rollout.obs)
        value = jnp.concatenate([rollout.extras["value"], self.judge(state.train.params, last)[1][None]])
        returns, reward = returns_of_movers(rollout, value, self.config.gamma)
        if self.config.openings:
            returns = jnp.where(rollout.extras["opening"], rollout.extras["value"], returns)
        rollout = rollout._replace(reward=reward, to_play=(), extras={**rollout.extras, "value": returns})
        return super().observe(state, rollout, key)

    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Move policy and value towards the search's policy and the outcome (equation 1; the decay is Adam's)."""

        def loss(network: PyTree) -> tuple[Array, tuple[Metrics, Array]]:
            logits, value = self.judge({"network": network}, batch.obs)
            policy = batch.extras["policy"]
            cross = -(policy * jax.nn.log_softmax(logits)).sum(axis=1)
            entropy = -(policy * jnp.log(jnp.maximum(policy, 1e-30))).sum(axis=1)
            error = batch.extras["value"] - value
            policy_loss, value_loss = ((batch.weight * x).mean() for x in (cross, error**2))
            total = policy_loss + self.config.vf_coef * value_loss
            divergence = (batch.weight * (cross - entropy)).mean()
            return total, ({"policy_loss": policy_loss, "value_loss": value_loss, "divergence": divergence}, error)

        train_state, (metrics, error) = self.optim.step(train_state, "network", loss, learning_rate)
        return train_state._replace(updates=train_state.updates + 1), metrics, error


def without_state(timestep: TimeStep) -> bool:
    """Tell whether there is nothing to plan in."""
    return not jax.tree.leaves(timestep.env_state)


def returns_of_movers(rollout: Rollout, value: Array, gamma: float | Array) -> tuple[Array, Array]:
    """Return what the player to move gets from there on, and what it is paid at once, both `[T, N]`.

    value: `[T+1, N]`, of the player to move, for where games are cut off. One player's gain is the other's loss.
    """
    if rollout.reward.ndim == 2:
        return discounted_returns(rollout.reward, value, rollout.terminated, rollout.valid, gamma), rollout.reward
    seats = jnp.arange(rollout.reward.shape[-1])
    sign = jnp.where(rollout.to_play[..., None] == seats, 1.0, -1.0)  # [T+1, N, P]
    of_each = jax.vmap(partial(discounted_returns, gamma=gamma), in_axes=(2, 2, None, None), out_axes=2)
    returns = of_each(rollout.reward, value[..., None] * sign, rollout.terminated, rollout.valid)
    mover = rollout.to_play[:-1, :, None]
    return tuple(jnp.take_along_axis(x, mover, axis=2)[..., 0] for x in (returns, rollout.reward))  # type: ignore
