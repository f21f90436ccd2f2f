"""Search in a latent model: how learners that have one choose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from renshu.algorithms.planning.backups import backing_up_in_place
from renshu.algorithms.planning.search import GUMBEL, Found, library
from renshu.networks.latent import LatentModel
from renshu.ops.categorical import scalar
from renshu.ops.masks import mask_values, split
from renshu.types import Array, EnvSpec, Key, PyTree

if TYPE_CHECKING:
    from renshu.algorithms.planning.muzero import MuZero

LEAST_RANGE = 0.01
"""Bound from below of what search divides the values of actions by: less is the networks' noise (Ye et al. 2021)."""


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


@dataclass(frozen=True)
class Imagination:
    """A latent model, and the search in it.

    config: hyperparameters, some of which may be traced numbers. spec: of the environments. model: the networks.
    """

    config: MuZero
    spec: EnvSpec
    model: LatentModel

    def split(self, obs: PyTree) -> tuple[PyTree, Array | None]:
        """Split observations `[B, ...]` into the network's input and the mask of actions, `[B, A]` bool or None."""
        return split(obs) if self.spec.masks else (obs, None)

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

    def advance(self, params: PyTree, node: Imagined, action: Array) -> tuple[Imagined, Array, Array]:
        """Step the model by actions `[B, ...]`.

        Returns rewards `[B]`, and the logits `[B, bins]` that tell them: of rewards, or of their sum since the root.
        """
        if not self.config.value_prefix:
            latent, _, logits = self.run(params, "step", node.latent, self.described(action), (), ())
            return Imagined(latent), scalar(logits, self.config.support), logits
        memory, before, steps = node.prefix
        begins = steps % self.config.num_unroll_steps == 0
        latent, memory, logits = self.run(params, "step", node.latent, self.described(action), memory, begins)
        total = scalar(logits, self.config.support)
        reward = total - jnp.where(begins, 0.0, before)
        return Imagined(latent, Prefix(memory, total, steps + 1)), reward, logits

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

    # --- search -----------------------------------------------------------------------------------------------------

    def imagine(self, params: PyTree, key: Key, index: Array, node: Imagined) -> tuple[Any, Imagined]:
        """Step the model: mctx's `recurrent_fn`. Of two players one moves after the other."""
        after, reward, _ = self.advance(params, node, self.chosen(index, node.choices))
        policy, value = self.predict(params, after.latent)
        priors, choices = self.offered(policy, None, key)
        return library().RecurrentFnOutput(
            reward=reward,
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

    def shown(self, policy: Array, mask: Array | None) -> dict[str, Array]:
        """Return the network's policy as users see it."""
        return {"probabilities": jax.nn.softmax(mask_values(policy, mask))}
