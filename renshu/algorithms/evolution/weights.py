"""Populations of weight vectors: any network of the library, of which all members have the same shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp

from renshu.algorithms.base import KINDS, OBSERVATIONS
from renshu.algorithms.evolution.population import Acting, EvolutionaryAlgorithm, PopulationLearner, State
from renshu.algorithms.hyperparameters import NetArch, boolean, choice, convolutions, layer_sizes, module
from renshu.errors import HyperparameterError
from renshu.networks.encoders import default_widths
from renshu.networks.heads import describe
from renshu.networks.layers import ACTIVATIONS
from renshu.networks.policy import vector_policy
from renshu.ops.adopted import adopted
from renshu.ops.frame_stack import empty_frames, stack_frames, stacked_space
from renshu.ops.images import has_images
from renshu.types import Accepts, ActorOutput, Array, EnvSpec, Key, Metrics, PyTree, TimeStep

WIDTHS = (32,)


@dataclass(frozen=True, kw_only=True)
class VectorAlgorithm(EvolutionaryAlgorithm):
    """Hyperparameters of learners that search the weights of one network."""

    accepts: ClassVar[Accepts] = Accepts(observations=OBSERVATIONS, actions=KINDS, frame_stack=True, masks=True)

    net_arch: NetArch | None = layer_sizes(
        None,
        f"widths of the hidden layers, [] for a linear policy; None: {WIDTHS}, or on images as published",
        optional=True,
    )
    activation_fn: str | None = choice(
        None, "activation of the hidden layers; None: tanh, or on images relu", (None, *ACTIVATIONS)
    )
    ortho_init: bool = boolean(True, "orthogonal initialisation of the weights that evolution begins at")
    with_bias: bool = boolean(True, "a bias on the outputs; hidden layers have one anyway")
    cnn: str | None = convolutions()
    network: Any = module("a Flax module of your own in place of the hidden layers: obs [B, ...] -> features [B, F]")


Config = TypeVar("Config", bound=VectorAlgorithm)


class VectorLearner(PopulationLearner[Config]):
    """Policies as vectors [D] of a network's weights. A subclass has the strategy, over `policy.size` weights."""

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        space = spec.network_space
        if spec.frame_stack > 1:
            space = stacked_space(space, spec.frame_stack)
        on_images = has_images(space, config.cnn is not None)
        widths = default_widths(space, config.cnn, WIDTHS) if config.net_arch is None else config.net_arch.pi
        self.policy = vector_policy(
            space,
            spec.action_space,
            widths=widths,
            activation_fn=config.activation_fn or ("relu" if on_images else "tanh"),
            ortho_init=config.ortho_init,
            squash_output=config.squash_output,
            masks=spec.masks,
            cnn=config.cnn,
            network=config.network,
            with_bias=config.with_bias,
        )

    def start(self, key: Key) -> Array:
        """Make the weights that a network begins with, [D]."""
        return self.policy.start(key)

    def params_of(self, solution: Array) -> PyTree:
        """Return weights by name, of a vector."""
        return self.policy.params(solution)

    def start_from(self, state: State, params: PyTree) -> State:
        """Begin the search at the weights of another's policy. Raises HyperparameterError where some have no place."""
        if not self.config.with_bias and "policy_head" in params and _has_bias(params["policy_head"]):
            raise HyperparameterError(f"{type(self.config).__name__}(with_bias=True) takes a policy that has a bias")
        params = adopted(state.params, params)
        search = self.strategy.init(jax.random.key(state.seed), self.policy.weights(params))
        return state._replace(params=params, search=search)

    def initial_carry(self, num_envs: int) -> PyTree:
        """Return the frames before the first observation; () without a frame stack."""
        count = self.spec.frame_stack
        return empty_frames(self.spec.observation_space, count, num_envs) if count > 1 else ()

    def act(self, acting: Acting, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        """Let each member act in its environments; without exploration one policy in all."""
        obs, frames = self.seen(acting, carry, timestep)
        if not explore:
            return ActorOutput(self.policy.policy(acting.params, obs).mode(), frames)
        count = len(acting.members)

        def by_member(x: Array) -> Array:
            return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

        def in_order(x: Array) -> Array:
            return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

        def mode(weights: Array, obs: PyTree) -> Array:
            return self.policy.policy(self.policy.params(weights), obs).mode()

        action = jax.vmap(mode)(acting.members, jax.tree.map(by_member, obs))
        return ActorOutput(jax.tree.map(in_order, action), frames)

    def seen(self, acting: Acting, carry: PyTree, timestep: TimeStep) -> tuple[PyTree, PyTree]:
        """Return the network's inputs in a step, `[N, ...]`, and the newer frames."""
        obs, frames = stack_frames(carry, timestep.obs, timestep.first)
        return self.normalized(acting, obs), frames

    def explain(self, acting: Acting, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the parameters of the policy that is played without exploration, `[N, ...]`."""
        obs, _ = self.seen(acting, carry, timestep)
        found = describe(self.policy.policy(acting.params, obs))
        return {name: value for name, value in found.items() if name != "std"}

    def metrics(self, search: PyTree, solution: Array, rate: Array) -> Metrics:
        """Return the size of the weights."""
        return {"weights_norm": jnp.linalg.norm(solution)}


def _has_bias(head: PyTree) -> bool:
    return any("bias" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(head))
