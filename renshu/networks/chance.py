"""Networks of learners whose model has chance in it: an action leads to an afterstate, and from there chance on."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from renshu.networks.latent import Features, Head, LatentModel, Representation, Transition
from renshu.networks.layers import dense
from renshu.types import Array, PyTree


class ChanceModel(LatentModel):
    """The networks of Stochastic MuZero (Antonoglou et al. 2022, figure 1).

    codes: number of outcomes that chance may have. Other fields are those of LatentModel.
    """

    codes: int = 32

    def setup(self) -> None:
        """Make the parts; their names are those of their weights in files."""
        super().setup()
        widths = self.widths
        self.afterstate_dynamics = Transition(widths, self.blocks)
        self.chance_dynamics = Transition(widths, self.blocks)
        self.afterstate_value = Head(self.bins, widths[-1:])
        self.chance_head = Head(self.codes, widths[-1:])
        self.encoder = Representation(self.space, self.latent, widths, self.blocks, self.channels, self.cnn)
        self.encoder_features = Features(widths[-1:])
        self.encoded = dense(self.codes, 1.0, False)

    def __call__(self, obs: PyTree) -> tuple[Array, ...]:
        """Run all parts, to make their parameters."""
        latent = self.represent(obs)
        after = self.act(latent, jnp.zeros((len(latent), self.actions)))
        code = self.encode(obs, obs)
        before = self.happen(after, code)[0]
        more = (self.project(before, True),) if self.projection else ()
        return (*self.predict(before), *self.foresee(after), *self.happen(after, code), *more)

    def act(self, latent: Array, action: Array) -> Array:
        """Return the afterstate of an action `[B, actions]`: what it does before chance does anything."""
        return self.afterstate_dynamics(latent, action)

    def foresee(self, afterstate: Array) -> tuple[Array, Array]:
        """Return logits of chance's outcomes `[B, codes]`, and of the afterstate's value `[B, bins]`."""
        return self.chance_head(afterstate), self.afterstate_value(afterstate)

    def happen(self, afterstate: Array, code: Array) -> tuple[Array, Array]:
        """Return the latent after an outcome of chance `[B, codes]`, and logits of the reward `[B, bins]`."""
        latent = self.chance_dynamics(afterstate, code)
        return latent, self.reward_head(latent)

    def encode(self, before: PyTree, after: PyTree) -> Array:
        """Return logits `[B, codes]` of the outcome that led from one observation to the next."""
        both = [self.encoder(obs) for obs in (before, after)]
        return self.encoded(self.encoder_features(jnp.concatenate(both, axis=-1)))


def one_hot_of(logits: Array, noise: Array) -> Array:
    """Choose a code, one-hot `[B, codes]`, by logits with noise; the gradient is that of their probabilities.

    (Straight-through Gumbel-softmax: Jang et al. 2017, section 2.2.)
    """
    probabilities = jax.nn.softmax(logits)
    code = jax.nn.one_hot(jnp.argmax(logits + noise, axis=-1), logits.shape[-1])
    return code + probabilities - jax.lax.stop_gradient(probabilities)
