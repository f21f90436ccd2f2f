"""Learners that search in a latent model of their own: how they act, and what they remember of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.planning.backups import backing_up_in_place
from renshu.algorithms.planning.search import GUMBEL, Found, library
from renshu.algorithms.replay_learner import ActorState, ReplayLearner, State, examples
from renshu.errors import HyperparameterError
from renshu.networks.latent import LatentModel, has_planes
from renshu.ops.categorical import scalar
from renshu.ops.frame_stack import empty_frames, stack_frames, stack_rollout
from renshu.ops.masks import mask_for_display, mask_values
from renshu.ops.schedules import value_of
from renshu.ops.spaces import dummy
from renshu.optim.train_state import Optimizers, TrainState
from renshu.replay.sequences import SequenceBuffer
from renshu.types import ActorOutput, Array, Counters, EnvSpec, Key, PyTree, Rollout, TimeStep

if TYPE_CHECKING:
    from renshu.algorithms.planning.muzero import MuZero

LEAST_RANGE = 0.01
"""Bound from below of what search divides the values of actions by: less is the networks' noise (Ye et al. 2021)."""
MEMORY = 64
"""Units of the network that sums up rewards."""


class Prefix(NamedTuple):
    """Sum of rewards on the way to a state, where the model says that in place of each reward."""

    memory: PyTree
    total: Array  # [B] float32
    steps: Array  # [B] int32  since the root


class Imagined(NamedTuple):
    """States as the model imagines them."""

    latent: Array  # [B, ...]
    prefix: PyTree = ()  # a Prefix, where the model sums up rewards
    choices: Array = ()  # [B, C, D]  actions to choose from there, where these were drawn


class Searched(NamedTuple):
    """Result of a search from B observations."""

    found: Found
    root: Imagined


class ImaginingLearner(ReplayLearner["MuZero"]):
    """A latent model, the search in it that acts, and a memory of sequences. A subclass has `gradient_step`."""

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

    # --- the model --------------------------------------------------------------------------------------------------

    def run(self, params: PyTree, part: str, *args: Any) -> Any:
        """Run a method of the networks."""
        return self.model.apply({"params": params["model"]}, *args, method=part)

    def root(self, params: PyTree, obs: PyTree) -> Imagined:
        """Return what observations `[B, ...]` stand for."""
        latent = self.run(params, "represent", self.split(obs)[0])
        if not self.config.value_prefix:
            return Imagined(latent)
        count = len(latent)
        return Imagined(latent, Prefix(self.model.initial_memory(count), jnp.zeros(count), jnp.zeros(count, jnp.int32)))

    def advance(self, params: PyTree, node: Imagined, action: Array) -> tuple[Imagined, Array]:
        """Step the model by actions `[B, ...]`. Returns logits of the reward, or of the value prefix, `[B, bins]`."""
        if not self.config.value_prefix:
            latent, _, logits = self.run(params, "step", node.latent, self.described(action), (), ())
            return Imagined(latent), logits
        memory, _, steps = node.prefix
        begins = steps % self.config.num_unroll_steps == 0
        latent, memory, logits = self.run(params, "step", node.latent, self.described(action), memory, begins)
        return Imagined(latent, Prefix(memory, scalar(logits, self.config.support), steps + 1)), logits

    def paid(self, node: Imagined, after: Imagined, logits: Array) -> Array:
        """Return the reward of a step, `[B]`."""
        if not self.config.value_prefix:
            return scalar(logits, self.config.support)
        begins = node.prefix.steps % self.config.num_unroll_steps == 0
        return after.prefix.total - jnp.where(begins, 0.0, node.prefix.total)

    def predict(self, params: PyTree, latent: Array) -> tuple[Array, Array]:
        """Estimate what describes the policy, `[B, ...]`, and values `[B]` for the player to move."""
        policy, value = self.run(params, "predict", latent)
        return policy, scalar(value, self.config.support)

    # --- choices ----------------------------------------------------------------------------------------------------

    def offered(self, policy: Array, mask: Array | None, key: Key, explore: bool = False) -> tuple[Array, Array]:
        """Return logits of the choices at a state, and the choices where they are drawn."""
        return mask_values(policy, mask), ()

    def chosen(self, index: Array, choices: Array) -> Array:
        """Return actions by the number of their choice."""
        return index

    def described(self, action: Array) -> Array:
        """Describe actions to the model."""
        return jax.nn.one_hot(action, self.model.actions)

    def any_actions(self, key: Key, shape: tuple[int, ...]) -> Array:
        """Draw actions, all of them alike."""
        return jax.random.randint(key, shape, 0, self.model.actions)

    # --- acting -----------------------------------------------------------------------------------------------------

    def imagine(self, params: PyTree, key: Key, index: Array, node: Imagined) -> tuple[Any, Imagined]:
        """Step the model: mctx's `recurrent_fn`. Of two players one moves after the other."""
        after, logits = self.advance(params, node, self.chosen(index, node.choices))
        policy, value = self.predict(params, after.latent)
        priors, choices = self.offered(policy, None, key)
        return library().RecurrentFnOutput(
            reward=self.paid(node, after, logits),
            discount=self.discount_in_search(value),
            prior_logits=priors,
            value=value,
        ), after._replace(choices=choices)

    def discount_in_search(self, value: Array) -> Array:
        """Return the discount of values `[B]`: negative of the other player's."""
        return jnp.full(value.shape, self.config.gamma if self.spec.players == 1 else -self.config.gamma)

    def find(self, params: PyTree, obs: PyTree, key: Key, explore: bool, temperature: Array | float = 1.0) -> Searched:
        """Search from B observations."""
        # Between equals search draws lots; the best action is always the same one.
        key_choices, key_search = jax.random.split(key if explore else jax.random.key(0))
        root, mask = self.root(params, obs), self.split(obs)[1]
        policy, value = self.predict(params, root.latent)
        logits, choices = self.offered(policy, mask, key_choices, explore)
        root = root._replace(choices=choices)
        begin = library().RootFnOutput(prior_logits=logits, value=value, embedding=root)
        with backing_up_in_place():
            found = self.search(params, key_search, begin, None if mask is None else ~mask, explore, temperature)
        summary, action = found.search_tree.summary(), found.action.astype(jnp.int32)
        return Searched(Found(action, found.action_weights, summary.value, summary.visit_counts, summary.qvalues), root)

    def search(
        self, params: PyTree, key: Key, root: Any, forbidden: Array | None, explore: bool, temperature: Array | float
    ) -> Any:
        """Search in the model. explore: with noise at the root, and a drawn action; otherwise the best one."""
        config, mctx = self.config, library()
        ways: dict[str, Any] = {"num_simulations": config.num_simulations, "invalid_actions": forbidden}
        if config.search == GUMBEL:
            transform = partial(mctx.qtransform_completed_by_mix_value, epsilon=LEAST_RANGE)
            ways |= {"gumbel_scale": 1.0 if explore else 0.0, "qtransform": transform}
            ways |= {"max_num_considered_actions": config.max_num_considered_actions}
            return mctx.gumbel_muzero_policy(params, key, root, self.imagine, **ways)
        ways |= {"qtransform": partial(mctx.qtransform_by_parent_and_siblings, epsilon=LEAST_RANGE)}
        ways |= self.noise(explore, temperature)
        return mctx.muzero_policy(params, key, root, self.imagine, **ways)

    def noise(self, explore: bool, temperature: Array | float) -> dict[str, Any]:
        """Return the settings of a search by PUCT."""
        config = self.config
        return {
            "dirichlet_fraction": config.dirichlet_fraction if explore else 0.0,
            "dirichlet_alpha": config.dirichlet_alpha,
            "pb_c_init": config.c_puct,
            "temperature": temperature if explore else 0.0,
        }

    def learned_of(self, searched: Searched) -> dict[str, Array]:
        """Return the part of a search's result that is learned."""
        return {"policy": searched.found.policy, "value": searched.found.value}

    def exploration_after(self, counters: Counters, before: Array | float = jnp.inf) -> Array:
        """Compute the temperature, [] float32, which actors know as their exploration; it may be above 1."""
        return jnp.minimum(before, value_of(self.config.temperature, counters.progress_remaining)).astype(jnp.float32)

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        obs, carry = stack_frames(carry, timestep.obs, timestep.first)
        searched = self.find(acting.params, obs, key, explore, acting.exploration)
        extras, nothing = self.learned_of(searched), jnp.zeros(timestep.first.shape, jnp.int32)
        if self.spec.players > 1:
            extras["to_play"] = nothing if isinstance(timestep.to_play, tuple) else timestep.to_play
        if self.config.search_value:
            extras["updates"] = nothing  # `observe` knows
        return ActorOutput(self.chosen(searched.found.action, searched.root.choices), carry, extras)

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the network's policy and `value` [N]; of a search also its policy, values and visits, `[N, A]`."""
        obs, _ = stack_frames(carry, timestep.obs, timestep.first)
        mask = self.split(obs)[1]
        policy, value = self.predict(acting.params, self.root(acting.params, obs).latent)
        searched = self.find(acting.params, obs, jax.random.key(0), explore=False)
        found, choices = searched.found, searched.root.choices
        return {
            **({} if isinstance(choices, tuple) else {"choices": jnp.tanh(choices)}),
            **self.shown(policy, mask),
            "value": value,
            "search_policy": found.policy,
            "action_values": mask_for_display(jnp.where(found.visits > 0, found.values, jnp.nan), mask),
            "visits": found.visits,
            "search_value": found.value,
        }

    def shown(self, policy: Array, mask: Array | None) -> dict[str, Array]:
        """Return the network's policy as users see it."""
        return {"probabilities": jax.nn.softmax(mask_values(policy, mask))}

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
