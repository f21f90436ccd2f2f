"""What all tests share: one folder of compiled programs for the whole session, and tiny agents."""

import gc
import itertools
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

_OWN: list[str] = []
MANY_MAPS, OFTEN = 15_000, 20
"""Mapped stretches of memory, of which each compiled program takes some: Linux gives a process 65,530, then it dies.

They are counted before every twentieth test.
"""
_begun = itertools.count()


def pytest_configure(config):
    # The workers of pytest-xdist inherit the variable, so that all share one folder.
    if "RENSHU_CACHE_DIR" not in os.environ:
        _OWN.append(tempfile.mkdtemp(prefix="renshu-cache-"))
        os.environ["RENSHU_CACHE_DIR"] = _OWN[0]
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    # Most of the time goes to compiling: half of it goes with these. `XLA_FLAGS= make test` compiles as for users.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false")
    # Programs are many small objects that stay: looking through them again and again took a twentieth of the time.
    gc.set_threshold(100_000, 20, 50)


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, or one worker would be left with it at the end."""
    items.sort(key=lambda item: "test_documentation" not in item.nodeid)


def pytest_unconfigure(config):
    for folder in _OWN:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _few_programs():
    """Let go of compiled programs from time to time: thousands of tests in one process make thousands."""
    if next(_begun) % OFTEN or "jax" not in sys.modules:
        return
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MANY_MAPS:
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


@contextmanager
def _as_for_users():
    """Compile with XLA's newer fusions, as for users; without them the loops' programs differ in last bits."""
    from jax._src import compiler

    plain = compiler.get_compile_options

    def options(*args, **kwargs):
        chosen = {"xla_cpu_use_fusion_emitters": True, **(kwargs.pop("env_options_overrides", None) or {})}
        return plain(*args, env_options_overrides=chosen, **kwargs)

    compiler.get_compile_options = options
    yield
    compiler.get_compile_options = plain


@pytest.fixture
def exact():
    """Let a test compare two programs bit for bit."""
    with _as_for_users():
        yield


@pytest.fixture(scope="module")
def exact_module():
    """Let a module compare programs bit for bit."""
    with _as_for_users():
        yield


@pytest.fixture
def tiny():
    """A function that makes a tiny PPO agent: 2 environments, 32 steps an update."""

    def make(env="CartPole-v1", *, num_envs=2, seed=0, env_kwargs=None, max_episode_steps=None, **hyperparameters):
        from renshu import PPO

        chosen = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "net_arch": [8], **hyperparameters}
        how = {"env_kwargs": env_kwargs, "max_episode_steps": max_episode_steps}
        return PPO(**chosen).on(env, num_envs=num_envs, seed=seed, **how)

    return make
