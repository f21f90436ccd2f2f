"""MuZero (Schrittwieser et al. 2020): search in a model that is learned, of rewards, values and policies alone.

With the options of EfficientZero (Ye et al. 2021, "Mastering Atari games with limited data").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.hyperparameters import (
    NetArch,
    ScheduleLike,
    boolean,
    choice,
    convolutions,
    integer,
    layer_sizes,
    number,
    schedule,
)
from renshu.algorithms.planning.imagination import Imagination, Imagined
from renshu.algorithms.planning.search import GUMBEL, PUCT, library
from renshu.algorithms.planning.targets import unroll_targets
from renshu.algorithms.planning.unrolling import (
    Lesson,
    Parts,
    Unrolled,
    at,
    by_step,
    expanded,
    flat,
    halved,
    over_steps,
)
from renshu.algorithms.replay_learner import ActorState, ReplayAlgorithm, ReplayLearner, State, examples
from renshu.errors import HyperparameterError
from renshu.networks.latent import LatentModel, has_planes
from renshu.ops.categorical import cross_entropy, scalar, two_hot
from renshu.ops.frame_stack import empty_frames, stack_frames, stack_rollout
from renshu.ops.masks import mask_for_display
from renshu.ops.schedules import value_of
from renshu.ops.spaces import dummy
from renshu.optim.train_state import Optimizers, TrainState, apply_every, polyak
from renshu.replay.sequences import SequenceBuffer, Sequences
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, PyTree, Rollout, TimeStep

MEMORY = 64
"""Units of the network that sums up rewards."""


@dataclass(frozen=True, kw_only=True)
class MuZero(ReplayAlgorithm):
    """Learn a model in which search finds good actions, from what search in it found before.

    It moves for both players of a game, and takes it that they move in turn, and that one gains what the other loses:
    in a game in which one may move twice, search has the sign of what follows wrong. EfficientZero is
    consistency_coef=2, value_prefix=True, and reanalyse=1 with search_value=True, which stands for its correction of
    old targets.
    """

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"discrete"}), frame_stack=True, masks=True, players=True
    )

    learning_rate: ScheduleLike = schedule(1e-3, "step size of Adam", least=0, traceable=True)
    buffer_size: int = integer(50_000, "steps that the memory holds, of all environments together", least=1)
    learning_starts: int = integer(1_000, "steps before the first gradient step", least=0)
    batch_size: int = integer(128, "sequences drawn for one gradient step", least=1)
    gamma: float = number(0.997, "discount factor", least=0, most=1, traceable=True)
    train_freq: int = integer(20, "steps collected of each environment between two trainings", least=1)
    gradient_steps: int = integer(16, "gradient steps in a training; -1: as many as steps were collected", least=-1)
    n_steps: int = integer(10, "rewards summed up before the value of what comes after", least=1)
    num_unroll_steps: int = integer(5, "steps that the model is unrolled in learning", least=1)
    num_simulations: int = integer(25, "states that a search looks at before each action", least=1)
    search: str = choice(
        PUCT,
        'the search: "puct" (Silver 2018) or "gumbel" (Danihelka 2022), which needs few simulations',
        (PUCT, GUMBEL),
    )
    max_num_considered_actions: int = integer(16, "actions compared at the root by the search with Gumbel", least=1)
    c_puct: float = number(1.25, "how much the search explores: weight of the prior and the visits", least=0)
    dirichlet_alpha: float = number(0.3, "concentration of the noise on the prior at the root", above=0)
    dirichlet_fraction: float = number(0.25, "share of that noise", least=0, most=1)
    temperature: ScheduleLike = schedule(
        1.0,
        'visits to this power\'s inverse are chances of the actions in training, with "puct"; it never rises',
        least=0,
    )
    target_update_interval: int | None = integer(
        100,
        "gradient steps between updates of the target network, whose values are taken for what comes after n_steps; "
        "None: those that search found when the steps were made",
        least=1,
        optional=True,
    )
    vf_coef: float = number(0.25, "weight of the value's loss", least=0, traceable=True)
    reward_coef: float = number(1.0, "weight of the reward's loss", least=0, traceable=True)
    ent_coef: float = number(0.0, "weight of the policy's entropy", least=0, traceable=True)
    weight_decay: float = number(1e-4, "share by which weights shrink in a gradient step, times the step size", least=0)
    max_grad_norm: float | None = number(
        10.0, "gradients are scaled down to this norm; None: never", above=0, optional=True
    )
    support: int = integer(30, "rewards and values are learned up to this, after squashing: 30 is 905", least=1)
    reanalyse: float = number(
        0.0, "share of each batch whose policies are those of a new search (Schrittwieser 2021)", least=0, most=1
    )
    search_value: bool = boolean(
        False, "values of that share too, in steps made long ago: those of the search's roots (Wang 2024)"
    )
    search_value_age: int = integer(1_000, "gradient steps after which steps were made long ago", least=0)
    consistency_coef: float = number(
        0.0, "weight of self-supervision: latents that were imagined should be those of what was seen", least=0
    )
    value_prefix: bool = boolean(False, "learn the sum of rewards since the root in place of each reward")
    latent: int = integer(128, "numbers of a latent state, where observations are no boards", least=1)
    net_arch: NetArch = layer_sizes((128,), "widths of the hidden layers of each network")
    n_blocks: int = integer(1, "residual blocks of representation and dynamics, on boards", least=0)
    n_channels: int = integer(32, "channels of each, on boards", least=1)
    cnn: str | None = convolutions()

    def build(self, spec: EnvSpec) -> MuZeroLearner:
        """Bind MuZero to an environment. Raises HyperparameterError for options that do not go together."""
        return MuZeroLearner(self, spec)


@dataclass(frozen=True, kw_only=True)
class GumbelMuZero(MuZero):
    """MuZero whose search improves the policy with few simulations (Danihelka et al. 2022)."""

    search: str = choice(GUMBEL, 'the search: "puct" or "gumbel"', (PUCT, GUMBEL))
    num_simulations: int = integer(16, "states that a search looks at before each action", least=1)


class MuZeroLearner(ReplayLearner[MuZero]):
    """A latent model, a memory of sequences, and the loss of unrolling the one along the other."""

    imagines: ClassVar[type[Imagination]] = Imagination
    """The choices that a search is offered, and the search among them."""

    def __init__(self, config: MuZero, spec: EnvSpec) -> None:
        name = type(config).__name__
        if spec.players > 2:
            raise HyperparameterError(
                f"{name} plans for one player or two; {spec.id or 'this game'} has {spec.players}"
            )
        if config.elite_episodes:
            raise HyperparameterError(f"{name}: elite_episodes moves episodes, and sequences go on after them")
        if config.search_value and not config.reanalyse:
            raise HyperparameterError(f"{name}: search_value=True is for what is searched anew: give reanalyse > 0")
        library()
        super().__init__(config, spec)
        self.convolves = True if has_planes(self.observation_space) else None
        self.model = self.make_model()
        clip = optax.identity() if config.max_grad_norm is None else optax.clip_by_global_norm(config.max_grad_norm)
        adam = optax.chain(clip, optax.scale_by_adam(eps=1e-5), optax.add_decayed_weights(config.weight_decay))
        self.optim = Optimizers({"model": adam}, guard=self.guards_each_step)

    @property
    def imagination(self) -> Imagination:
        """The model and its search, by the hyperparameters of now."""
        return self.imagines(self.config, self.spec, self.model)

    def make_model(self) -> LatentModel:
        """Make the networks."""
        return LatentModel(**self.sizes())

    def widths(self) -> tuple[int, int]:
        """Return how many numbers describe an action, and how many a policy."""
        return (int(self.spec.action_space.n),) * 2  # type: ignore[attr-defined]

    def sizes(self) -> dict[str, Any]:
        """Return what networks are made with."""
        config, (actions, policy) = self.config, self.widths()
        return {
            "space": self.observation_space,
            "actions": actions,
            "policy": policy,
            "bins": 2 * config.support + 1,
            "widths": config.net_arch.pi,
            "latent": config.latent,
            "blocks": config.n_blocks,
            "channels": config.n_channels,
            "cnn": config.cnn,
            "memory": MEMORY if config.value_prefix else 0,
            "projection": config.latent if config.consistency_coef else 0,
        }

    def make_replay(self) -> SequenceBuffer:
        config = self.config
        return SequenceBuffer(
            config.buffer_size,
            *examples(self.spec),
            num_envs=self.spec.num_envs,
            rollout_length=config.train_freq,
            # Rows that only fill the first frame stack come before, and the row of the last value after.
            sequence_length=self.spec.frame_stack + config.num_unroll_steps + config.n_steps,
            alpha=config.prioritized_replay_alpha if config.prioritized else None,
            own_heads=self.spec.rollout_envs is not None,
        )

    def init_train(self, key: Key) -> TrainState:
        params = {"model": self.model.init(key, dummy(self.observation_space, 1))["params"]}
        target = {} if self.config.target_update_interval is None else jax.tree.map(jnp.copy, params)
        return TrainState(params, target, self.optim.init(params), jnp.int32(0))

    # --- acting -----------------------------------------------------------------------------------------------------

    def exploration_after(self, counters: Counters, before: Array | float = jnp.inf) -> Array:
        """Compute the temperature, [] float32, which actors know as their exploration; it may be above 1."""
        return jnp.minimum(before, value_of(self.config.temperature, counters.progress_remaining)).astype(jnp.float32)

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        obs, carry = stack_frames(carry, timestep.obs, timestep.first)
        imagination = self.imagination
        searched = imagination.find(acting.params, obs, key, explore, acting.exploration)
        extras, nothing = imagination.learned_of(searched), jnp.zeros(timestep.first.shape, jnp.int32)
        if self.spec.players > 1:
            extras["to_play"] = nothing if isinstance(timestep.to_play, tuple) else timestep.to_play
        if self.config.search_value:
            extras["updates"] = nothing  # `observe` knows
        return ActorOutput(imagination.chosen(searched.found.action, searched.root.choices), carry, extras)

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the network's policy and `value` [N]; of a search also its policy, values and visits, `[N, A]`."""
        obs, _ = stack_frames(carry, timestep.obs, timestep.first)
        mask, imagination = self.split(obs)[1], self.imagination
        policy, value = imagination.predict(acting.params, imagination.root(acting.params, obs).latent)
        searched = imagination.find(acting.params, obs, jax.random.key(0), explore=False)
        found, choices = searched.found, searched.root.choices
        return {
            **({} if isinstance(choices, tuple) else {"choices": jnp.tanh(choices)}),
            **imagination.shown(policy, mask),
            "value": value,
            "search_policy": found.policy,
            "action_values": mask_for_display(jnp.where(found.visits > 0, found.values, jnp.nan), mask),
            "visits": found.visits,
            "search_value": found.value,
        }

    # --- learning ---------------------------------------------------------------------------------------------------

    def gradient_step(
        self, train_state: TrainState, batch: Sequences, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Unroll the model and move all that it says towards what search found and what happened (equation 1)."""
        config, K = self.config, self.config.num_unroll_steps
        key_lesson, key_model = jax.random.split(key)
        lesson = self.lesson(train_state, batch.rollout, key_lesson)

        def loss(model: PyTree) -> tuple[Array, tuple[Metrics, Array]]:
            out = self.unroll({"model": model}, lesson, key_model)
            parts = self.losses({"model": model}, out, lesson)
            metrics = {name: over_steps(x, where, batch.weight, K) for name, (_, x, where) in parts.items()}
            total = sum((weight * metrics[name] for name, (weight, _, _) in parts.items()), start=jnp.float32(0.0))
            value, begun = scalar(out.value[0], config.support), lesson.targets.going[0]
            # From where an episode is over there is nothing to learn, and no reason to draw it again.
            error = jnp.where(begun, lesson.targets.value[0] - value, 0.0)
            mean = jnp.where(begun, value, 0.0).sum() / jnp.maximum(begun.sum(), 1)
            return total, ({"loss": total, "value": mean, **metrics}, error)

        train_state, (metrics, error) = self.optim.step(train_state, "model", loss, learning_rate)
        train_state = train_state._replace(updates=train_state.updates + 1)
        if config.target_update_interval is not None:
            train_state = apply_every(config.target_update_interval, lambda state: polyak(state, 1.0), train_state)
        return train_state, metrics, error

    def unroll(self, params: PyTree, lesson: Lesson, key: Key) -> Unrolled:
        """Run the model from the first observations through the actions."""
        imagination = self.imagination
        root = imagination.root(params, at(lesson.seen, 0))

        def step(node: Imagined, action: Array) -> tuple[Imagined, tuple[Array, Array]]:
            node, _, reward = imagination.advance(params, node._replace(latent=halved(node.latent)), action)
            return node, (node.latent, reward)

        _, (latents, reward) = jax.lax.scan(step, root, lesson.action)
        latents = jnp.concatenate([root.latent[None], latents])
        policy, value = (by_step(x, latents) for x in imagination.run(params, "predict", flat(latents)))
        return Unrolled(policy, value, reward, latents)

    # --- losses -----------------------------------------------------------------------------------------------------

    def losses(self, params: PyTree, out: Unrolled, lesson: Lesson) -> Parts:
        """Compare what the model says with what it should say."""
        config, targets = self.config, lesson.targets
        reward = jnp.cumsum(targets.reward, axis=0) if config.value_prefix else targets.reward
        value, reward = (two_hot(x, config.support) for x in (targets.value, reward))
        parts: Parts = {
            "policy_loss": (1.0, self.policy_losses(out.policy, lesson.found), targets.going),
            "value_loss": (config.vf_coef, cross_entropy(out.value, value), targets.known),
            "reward_loss": (config.reward_coef, cross_entropy(out.reward, reward), targets.known[:-1]),
        }
        if config.consistency_coef:
            dissimilar = self.dissimilarity(params, out.latent[1:], at(lesson.seen, slice(1, len(out.latent))))
            parts["consistency_loss"] = config.consistency_coef, dissimilar, targets.going[:-1]
        return parts

    def policy_losses(self, policy: Array, found: dict[str, Array]) -> Array:
        """Compute the cross-entropy of the policy to the search's, `[K+1, B]`, less its own entropy's share."""
        entropy = cross_entropy(policy, jax.nn.softmax(policy))
        return cross_entropy(policy, found["policy"]) - self.config.ent_coef * entropy

    def dissimilarity(self, params: PyTree, latent: Array, seen: PyTree) -> Array:
        """Compare latents `[K, B, ...]` with those of what was seen there: minus the cosine, `[K, B]`.

        As in SimSiam: the other branch is not moved (Ye et al. 2021, equation 2).
        """
        imagination = self.imagination
        goal = imagination.run(params, "project", imagination.root(params, flat(seen)).latent, False)
        ours = imagination.run(params, "project", flat(latent), True)
        unit = [x / jnp.sqrt((x**2).sum(axis=1, keepdims=True) + 1e-8) for x in (ours, jax.lax.stop_gradient(goal))]
        return by_step(-(unit[0] * unit[1]).sum(axis=1), latent)

    # --- targets ----------------------------------------------------------------------------------------------------

    def lesson(self, train_state: TrainState, rollout: Rollout, key: Key) -> Lesson:
        """Make of sequences what there is to learn. Beyond the end of an episode actions are random (appendix G)."""
        config, K, imagination = self.config, self.config.num_unroll_steps, self.imagination
        key_search, key_beyond = jax.random.split(key)
        rollout, seen = self.stacked(rollout)
        value = rollout.extras["value"]
        if config.target_update_interval is not None:
            rows, target = at(seen, slice(None, -1)), train_state.target
            value = by_step(imagination.predict(target, imagination.root(target, flat(rows)).latent)[1], rows)
        targets = unroll_targets(rollout, value, self.discounts(rollout), config.n_steps, K)
        beyond = imagination.any_actions(key_beyond, targets.reward.shape)
        action = jnp.where(expanded(targets.going[:K], beyond), rollout.action[:K], beyond)
        lesson = Lesson(seen, action, targets, at(rollout.extras, slice(None, K + 1)))
        return self.searched_anew(train_state, lesson, key_search) if config.reanalyse else lesson

    def searched_anew(self, train_state: TrainState, lesson: Lesson, key: Key) -> Lesson:
        """Put the results of a new search in place of the old ones, in a share of the sequences."""
        going, found, value = lesson.targets.going, lesson.found, lesson.targets.value
        steps, count = len(going), round(self.config.reanalyse * going.shape[1])
        rows = jax.tree.map(lambda x: x[:steps, :count], lesson.seen)
        searched = self.imagination.find(train_state.target or train_state.params, flat(rows), key, explore=True)
        fresh = {name: by_step(x, rows) for name, x in self.imagination.learned_of(searched).items()}
        if self.config.search_value:
            old = train_state.updates - found["updates"][:, :count] > self.config.search_value_age
            value = value.at[:, :count].set(jnp.where(old & going[:, :count], fresh["value"], value[:, :count]))
        found = found | {name: found[name].at[:, :count].set(x) for name, x in fresh.items()}
        return lesson._replace(targets=lesson.targets._replace(value=value), found=found)

    def discounts(self, rollout: Rollout) -> Array | float:
        """Return the discount of each step, `[T-1, B]`: negative where the turn passes to the other player of two."""
        if self.spec.players == 1:
            return self.config.gamma
        seat = rollout.extras["to_play"]
        return jnp.where(seat[:-1] == seat[1:], self.config.gamma, -self.config.gamma)

    # --- memory -----------------------------------------------------------------------------------------------------

    def observe(self, state: State, rollout: Rollout, key: Key) -> State:
        """Keep of the rewards of all players that of the one who moved, and how much had been learned by then."""
        if rollout.reward.ndim == 3:
            mover = rollout.to_play[:-1, :, None]
            reward = jnp.take_along_axis(rollout.reward, mover, axis=2)[..., 0]
            rollout = rollout._replace(reward=reward, to_play=())
        if self.config.search_value:
            updates = jnp.full(rollout.reward.shape, state.train.updates)
            rollout = rollout._replace(extras={**rollout.extras, "updates": updates})
        return super().observe(state, rollout, key)

    def stacked(self, rollout: Rollout) -> tuple[Rollout, PyTree]:
        """Return sequences without the rows that only fill the first frame stack, and the stacks `[T+1, B, ...]`."""
        count = self.spec.frame_stack
        if count == 1:
            return rollout, rollout.obs
        frames = empty_frames(self.spec.observation_space, count, rollout.first.shape[1])
        stacks = stack_rollout(frames, rollout.obs, rollout.first)
        return jax.tree.map(lambda x: x[count - 1 :], (rollout._replace(carry=()), stacks))
