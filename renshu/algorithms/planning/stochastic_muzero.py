"""Stochastic MuZero (Antonoglou et al. 2022, "Planning in stochastic environments with a learned model")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from renshu.algorithms.hyperparameters import choice, integer, number
from renshu.algorithms.planning.imagination import LEAST_RANGE, Imagination, Imagined
from renshu.algorithms.planning.muzero import MuZero, MuZeroLearner
from renshu.algorithms.planning.search import PUCT, library
from renshu.algorithms.planning.unrolling import Lesson, Parts, Unrolled, at, by_step, expanded, flat, halved
from renshu.errors import HyperparameterError
from renshu.networks.chance import ChanceModel, one_hot_of
from renshu.ops.categorical import cross_entropy, scalar, two_hot
from renshu.types import Array, EnvSpec, Key, PyTree


@dataclass(frozen=True, kw_only=True)
class StochasticMuZero(MuZero):
    """MuZero whose model has chance in it: an action leads to an afterstate, and from there one of some codes on.

    The codes are learned: an encoder looks at what happened, and names it by the code that helps to foretell it.
    """

    search: str = choice(PUCT, "the search, which there is one of", (PUCT,))
    num_codes: int = integer(32, "outcomes that chance may have", least=2)
    chance_coef: float = number(1.0, "weight of the losses of chance and of afterstates", least=0, traceable=True)
    commitment_coef: float = number(0.1, "weight of the encoder's certainty", least=0, traceable=True)

    def build(self, spec: EnvSpec) -> StochasticMuZeroLearner:
        """Bind Stochastic MuZero to an environment. Raises HyperparameterError for options that do not go together."""
        return StochasticMuZeroLearner(self, spec)


class Chance(NamedTuple):
    """Outputs of the model about chance, in K steps."""

    code: Array  # [K, B, C]  one-hot, the outcome that the encoder names
    encoded: Array  # [K, B, C]  its logits
    logits: Array  # [K, B, C]  those that were foretold
    value: Array  # [K, B, bins]  of the afterstate


class StochasticImagination(Imagination):
    """Search among what is decided and what chance may bring."""

    config: StochasticMuZero

    def decide(self, params: PyTree, key: Key, action: Array, node: Imagined) -> tuple[Any, Array]:
        """Step from states to afterstates: mctx's `decision_recurrent_fn`."""
        after = self.run(params, "act", node.latent, self.described(action))
        logits, value = self.run(params, "foresee", after)
        value = scalar(value, self.config.support)
        return library().DecisionRecurrentFnOutput(chance_logits=logits, afterstate_value=value), after

    def befall(self, params: PyTree, key: Key, code: Array, after: Array) -> tuple[Any, Imagined]:
        """Step from afterstates to states: mctx's `chance_recurrent_fn`."""
        latent, reward = self.run(params, "happen", after, jax.nn.one_hot(code, self.config.num_codes))
        logits, value = self.predict(params, latent)
        return library().ChanceRecurrentFnOutput(
            action_logits=logits,
            value=value,
            reward=scalar(reward, self.config.support),
            discount=self.discount_in_search(value),
        ), Imagined(latent)

    def search(
        self, params: PyTree, key: Key, root: Any, forbidden: Array | None, explore: bool, temperature: Array | float
    ) -> Any:
        """Search in the model, whose chance nodes are visited in proportion to what was foretold."""
        mctx = library()
        ways: dict[str, Any] = {"num_simulations": self.config.num_simulations, "invalid_actions": forbidden}
        ways |= {"qtransform": partial(mctx.qtransform_by_parent_and_siblings, epsilon=LEAST_RANGE)}
        ways |= self.noise(explore, temperature)
        return mctx.stochastic_muzero_policy(params, key, root, self.decide, self.befall, **ways)


class StochasticMuZeroLearner(MuZeroLearner):
    """A model with afterstates and chance, and its losses."""

    config: StochasticMuZero
    imagines = StochasticImagination

    def __init__(self, config: StochasticMuZero, spec: EnvSpec) -> None:
        unused = ("value_prefix", "max_num_considered_actions")
        unused = [name for name in unused if getattr(config, name) != getattr(StochasticMuZero, name)]
        if unused:
            raise HyperparameterError(f"StochasticMuZero has no {' and no '.join(unused)}: leave it out")
        super().__init__(config, spec)

    def make_model(self) -> ChanceModel:
        return ChanceModel(**self.sizes(), codes=self.config.num_codes)

    def unroll(self, params: PyTree, lesson: Lesson, key: Key) -> Unrolled:
        """Run the model from the first observations through the actions, and the codes of what happened then."""
        imagination = self.imagination
        steps, root = len(lesson.action), imagination.root(params, at(lesson.seen, 0))
        before, after = (self.split(flat(at(lesson.seen, slice(i, i + steps))))[0] for i in (0, 1))
        encoded = by_step(imagination.run(params, "encode", before, after), lesson.targets.reward)
        noise = jax.random.gumbel(key, encoded.shape)
        # Where an episode is over search still has some outcome happen, of which none may change anything.
        beyond = one_hot_of(jnp.zeros_like(encoded), noise)
        code = jnp.where(expanded(lesson.targets.going[:-1], noise), one_hot_of(encoded, noise), beyond)

        def step(latent: Array, row: tuple[Array, Array]) -> tuple[Array, tuple[Array, ...]]:
            action, code = row
            after = imagination.run(params, "act", halved(latent), imagination.described(action))
            latent, reward = imagination.run(params, "happen", after, code)
            return latent, (latent, reward, *imagination.run(params, "foresee", after))

        _, (latents, reward, logits, value) = jax.lax.scan(step, root.latent, (lesson.action, code))
        latents = jnp.concatenate([root.latent[None], latents])
        policy, values = (by_step(x, latents) for x in imagination.run(params, "predict", flat(latents)))
        return Unrolled(policy, values, reward, latents, Chance(code, encoded, logits, value))

    def losses(self, params: PyTree, out: Unrolled, lesson: Lesson) -> Parts:
        """Compare what the model says with what it should say (equations 5 to 7)."""
        config, chance, targets = self.config, out.chance, lesson.targets
        where, known = targets.going[:-1], targets.known[:-1]
        code = jax.lax.stop_gradient(chance.code)
        value = two_hot(targets.value[:-1], config.support)
        commitment = ((jax.nn.softmax(chance.encoded) - code) ** 2).sum(axis=-1)
        return super().losses(params, out, lesson) | {
            "chance_loss": (config.chance_coef, cross_entropy(chance.logits, code), where),
            "afterstate_loss": (config.chance_coef * config.vf_coef, cross_entropy(chance.value, value), known),
            "commitment_loss": (config.commitment_coef, commitment, where),
        }
