"""Networks of learners that plan in a model of their own: it steps latents, which stand for states.

Latents are vectors `[B, latent]`, or planes `[B, height, width, channels]` where observations are boards. Each lies
within [0, 1], its least number at 0 and its largest at 1 (Schrittwieser et al. 2020, "MuZero", appendix G).
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.encoders import Encoder, Hidden
from renshu.networks.layers import dense
from renshu.networks.planning import ResidualTower, is_board
from renshu.networks.recurrent import LSTM
from renshu.ops.images import has_images, scaled
from renshu.types import Array, PyTree

LEAST_RANGE = 1e-5


def normalised(latent: Array) -> Array:
    """Scale each latent `[B, ...]` to [0, 1]."""
    axes = tuple(range(1, latent.ndim))
    low, high = latent.min(axis=axes, keepdims=True), latent.max(axis=axes, keepdims=True)
    return (latent - low) / jnp.maximum(high - low, LEAST_RANGE)


def has_planes(space: spaces.Space) -> bool:
    """Tell whether the latents of observations are planes: those of boards, but not of images."""
    return is_board(space) and not has_images(space)


class Features(nn.Module):
    """Features `[B, widths[-1]]` of a latent."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, latent: Array) -> Array:
        x = latent
        if x.ndim == 4:
            x = nn.relu(nn.Conv(4, (1, 1))(x)).reshape(len(x), -1)
        return Hidden(self.widths, layer_norm=True)(x)


class Head(nn.Module):
    """Numbers `[B, outputs]` from a latent or from features, all of them 0 at first."""

    outputs: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, latent: Array) -> Array:
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(Features(self.widths)(latent))


class Representation(nn.Module):
    """The latent of an observation `[B, ...]`."""

    space: spaces.Space
    latent: int
    widths: tuple[int, ...]
    blocks: int
    channels: int
    cnn: str | None

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        if has_planes(self.space):
            return normalised(ResidualTower(self.blocks, self.channels)(scaled(self.space, obs)))
        x = Hidden(self.widths, layer_norm=True)(Encoder(self.space, self.cnn)(obs))
        return normalised(dense(self.latent, 1.0, False)(x))


class Transition(nn.Module):
    """The latent after one that something, `[B, F]`, is done to: an action, or chance."""

    widths: tuple[int, ...]
    blocks: int

    @nn.compact
    def __call__(self, latent: Array, action: Array) -> Array:
        if latent.ndim == 4:
            x = jnp.concatenate([latent, on_board(latent, action)], axis=-1)
            return normalised(latent + ResidualTower(self.blocks, latent.shape[-1])(x))
        x = Hidden(self.widths, layer_norm=True)(jnp.concatenate([latent, action], axis=-1))
        return normalised(latent + dense(latent.shape[-1], 1.0, False)(x))


def on_board(latent: Array, action: Array) -> Array:
    """Put actions `[B, A]` on boards like `latent`: `[B, height, width, C]`.

    One for each square, and perhaps one to pass, is a plane that marks the square; others are planes of a learned
    pattern. To be called in a compact module.
    """
    batch, height, width, _ = latent.shape
    if action.shape[-1] - height * width in (0, 1):
        return action[:, : height * width].reshape(batch, height, width, 1)
    return nn.Dense(height * width * 2, use_bias=False)(action).reshape(batch, height, width, 2)


class LatentModel(nn.Module):
    """Representation, dynamics and prediction of MuZero (Schrittwieser et al. 2020, figure 1).

    space: of observations. actions: numbers by which an action is described. policy: numbers that describe a policy.
    bins: numbers by which a reward or a value is. widths: of hidden layers. latent: numbers of a latent that is a
    vector. blocks, channels: of towers over boards. cnn: of images. memory: units of the network that sums up rewards,
    0 for one that gives each reward by itself. projection: width of the networks of self-supervision, 0 for none.
    """

    space: spaces.Space
    actions: int
    policy: int
    bins: int
    widths: tuple[int, ...] = (128,)
    latent: int = 128
    blocks: int = 1
    channels: int = 32
    cnn: str | None = None
    memory: int = 0
    projection: int = 0

    def setup(self) -> None:
        """Make the parts; their names are those of their weights in files."""
        widths = self.widths
        self.representation = Representation(self.space, self.latent, widths, self.blocks, self.channels, self.cnn)
        self.dynamics = Transition(widths, self.blocks)
        self.reward_head = Head(self.bins, widths[-1:])
        self.policy_head = Head(self.policy, widths[-1:])
        self.value_head = Head(self.bins, widths[-1:])
        if self.memory:
            self.reward_features = Features((self.memory,))
            self.reward_memory = LSTM(self.memory)
        if self.projection:
            self.projector = Hidden((self.projection,), layer_norm=True)
            self.projected = dense(self.projection, 1.0, False)
            self.predictor = Hidden((max(self.projection // 2, 1),), layer_norm=True)
            self.predicted = dense(self.projection, 1.0, False)

    def __call__(self, obs: PyTree) -> tuple[Array, ...]:
        """Run all parts, to make their parameters."""
        latent = self.represent(obs)
        count = len(latent)
        action, begins = jnp.zeros((count, self.actions)), jnp.ones(count, jnp.bool_)
        after, _, reward = self.step(latent, action, self.initial_memory(count), begins)
        more = (self.project(after, True),) if self.projection else ()
        return (*self.predict(after), reward, *more)

    def initial_memory(self, batch: int) -> PyTree:
        """Return the memory of rewards where it begins; () without one."""
        return tuple(jnp.zeros((batch, self.memory)) for _ in range(LSTM.parts)) if self.memory else ()

    def represent(self, obs: PyTree) -> Array:
        """Make the latent of an observation."""
        return self.representation(obs)

    def step(self, latent: Array, action: Array, memory: PyTree, begins: Array) -> tuple[Array, PyTree, Array]:
        """Return the latent after an action `[B, actions]`, the memory, and logits of the reward `[B, bins]`.

        With a memory they are of the sum of rewards since it began (Ye et al. 2021, section 4.2). begins: [B] bool, it
        begins here.
        """
        after = self.dynamics(latent, action)
        x = after
        if self.memory:
            features = self.reward_features(after)
            hidden, memory = self.reward_memory(features[None], memory, begins[None])
            x = hidden[0]
        return after, memory, self.reward_head(x)

    def predict(self, latent: Array) -> tuple[Array, Array]:
        """Return the policy `[B, policy]` and logits of the value `[B, bins]`."""
        return self.policy_head(latent), self.value_head(latent)

    def project(self, latent: Array, predict: bool) -> Array:
        """Project latents for self-supervision: `[B, projection]`; predict: of the branch that learns."""
        x = self.projected(self.projector(latent.reshape(len(latent), -1)))
        return self.predicted(self.predictor(x)) if predict else x
