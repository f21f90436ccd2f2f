"""What all tests share: one folder of compiled programs for the whole session, and tiny agents."""

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

_OWN: list[str] = []
MANY_MAPS = 10_000
"""Mapped stretches of memory, of which each compiled program takes some: Linux gives a process 65,530, then it dies."""


def pytest_configure(config):
    # The workers of pytest-xdist inherit the variable, so that all share one folder.
    if "RENSHU_CACHE_DIR" not in os.environ:
        _OWN.append(tempfile.mkdtemp(prefix="renshu-cache-"))
        os.environ["RENSHU_CACHE_DIR"] = _OWN[0]
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    # Most of the time goes to compiling: a sixth less at this level. `XLA_FLAGS= make test` has the level of users.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")


def pytest_unconfigure(config):
    for folder in _OWN:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    """Let go of compiled programs from time to time: thousands of tests in one process make thousands."""
    yield
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and len(maps.read_bytes().splitlines()) > MANY_MAPS:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def compiled_fast():
    """Compile with hardly any optimisation, for modules where nearly all the time goes to that: a quarter less of it.

    Programs that train at length run slower. `XLA_FLAGS= make test` asks users' level.
    """
    import jax

    jax.config.update("jax_disable_most_optimizations", "optimization_level=1" in os.environ.get("XLA_FLAGS", ""))
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def tiny():
    """A function that makes a tiny PPO agent: 2 environments, 32 steps an update."""

    def make(env="CartPole-v1", *, num_envs=2, seed=0, env_kwargs=None, max_episode_steps=None, **hyperparameters):
        from renshu import PPO

        chosen = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "net_arch": [8], **hyperparameters}
        how = {"env_kwargs": env_kwargs, "max_episode_steps": max_episode_steps}
        return PPO(**chosen).on(env, num_envs=num_envs, seed=seed, **how)

    return make
