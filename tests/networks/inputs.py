"""Inputs of networks, and hidden layers in NumPy."""

import jax
import numpy as np
from gymnasium import spaces

from renshu.networks.encoders import Hidden, Torso

KEY = jax.random.key(0)
SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
OBS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
ACTION = np.random.default_rng(1).uniform(-1, 1, (5, 2)).astype(np.float32)


def torso(**options):
    return Torso(SPACE, Hidden((4, 6), **options))


def drawn(module, *inputs):
    """Parameters of a module with no zero among them."""
    params = module.init(KEY, *inputs)["params"]
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(2)
    return jax.tree.unflatten(structure, [rng.normal(size=x.shape).astype(np.float32) for x in leaves])


def layers(params, x):
    """Hidden layers with relu, in NumPy."""
    for name in sorted(params):
        x = np.maximum(x @ params[name]["kernel"] + params[name]["bias"], 0)
    return x
