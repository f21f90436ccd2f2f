"""Summary of an agent in words: what was fitted to what and why, and the size of it all."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from renshu.agent.opponents import named_opponent
from renshu.envs.gymnasium import atari, retro
from renshu.loops.evaluation import LIMIT
from renshu.ops.spaces import leaf_spaces

if TYPE_CHECKING:
    from renshu.agent.trainer import Trainer
    from renshu.files.datasets import Dataset
    from renshu.types import EnvSpec

NO_LIMIT = f"no time limit known: an evaluation cuts episodes off after {LIMIT:,} steps, max_episode_steps= sets one"
_COLUMN = 17
_WIDEST = 120
_LONG = 60


def describe(trainer: Trainer) -> str:
    """Describe the agent of a trainer in several lines, for `agent.summary()`, no wider than the terminal."""
    algorithm, spec = trainer.algorithm, trainer.spec
    limit = f"{spec.max_episode_steps} steps an episode" if spec.max_episode_steps else NO_LIMIT
    threshold = f", solved at {spec.reward_threshold:g}" if spec.reward_threshold is not None else ""
    known = f"{limit}{threshold}"
    if trainer.dataset is None:
        known = f"{trainer.envs_at_once} at once{' in processes' if trainer.processes else ''}, {known}"
    game = atari.described(spec.id, spec.kwargs) or retro.described(spec.id, spec.kwargs)
    opponent = named_opponent(None if trainer.dataset or trainer.loop_name is None else trainer.backend.source)
    sections = [
        (
            "hyperparameters",
            ", ".join(f"{name}={value!r}" for name, value in algorithm.changed().items()) or "defaults",
        ),
        *([] if trainer.dataset is None else [("data", _data(trainer.dataset, trainer.learner.config))]),
        ("environment", known),
        *([] if game is None else [("game", game)]),
        *([] if opponent is None else [("opponent", opponent)]),
        *([("loop", trainer.loop_described())] if trainer.loop_name else []),
        *(_pair(_without_bounds(note, spec)) for note in trainer.fitted.notes),
        *([] if trainer.dataset else [("rollout", _rollout(trainer))]),
        ("parameters", f"{sum(int(np.size(x)) for x in jax.tree.leaves(trainer.held.params)):,}"),
    ]
    steps = f"{trainer.steps:,} {'gradient ' if trainer.dataset else ''}steps learned" if trainer.steps else "untrained"
    lines = [f"{type(algorithm).__name__} on {trainer.name}, {steps}, seed {trainer.seed}"]
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    for name, text in sections:
        wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
        wrapper.initial_indent, wrapper.subsequent_indent = f"  {name:<{_COLUMN}}", " " * (_COLUMN + 2)
        lines += wrapper.wrap(text)
    layers = _layers(trainer.held.params)
    longest = max(map(len, layers))
    lines += [f"    {layer:<{longest}}  {shapes}" for layer, shapes in layers.items()]
    return "\n".join(lines)


def _rollout(trainer: Trainer) -> str:
    steps, count = trainer.learner.needs.steps, trainer.spec.rollout_envs or trainer.spec.num_envs
    together = f", {steps * count:,} together" if count > 1 else ""
    return f"{steps} steps of each environment{together}; training ends with a whole one"


def _data(dataset: Dataset, sized: Any) -> str:
    """Say what a data set holds, and whether it fits into the memory, which is that of `sized`."""
    whole = sized.buffer_size >= dataset.rows * dataset.spec.num_envs
    fits = "all in memory" if whole else f"read in turn into a memory of {sized.buffer_size:,}"
    several = f" of {dataset.spec.num_envs} environments" if dataset.spec.num_envs > 1 else ""
    return f"{dataset.name}, {dataset.steps:,} steps{several}, {fits}"


def _without_bounds(note: str, spec: EnvSpec) -> str:
    """Replace long bounds of a Box, which tell less than its shape does."""
    for leaf in [*leaf_spaces(spec.observation_space), *leaf_spaces(spec.action_space)]:
        if len(str(leaf)) > _LONG:
            note = note.replace(str(leaf), f"{type(leaf).__name__}(shape={leaf.shape}, dtype={leaf.dtype})")
    return note


def _layers(parameters: Any) -> dict[str, str]:
    """Collect the shapes of the weights, layer by layer: {"policy_head/Dense_0": "kernel 64x2, bias 2"}."""
    layers: dict[str, list[str]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        *layer, name = [str(getattr(key, "key", getattr(key, "name", key))) for key in path] or [""]
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        layers.setdefault("/".join(layer), []).append(f"{name} {shape}")
    return {layer: ", ".join(sorted(shapes, reverse=True)) for layer, shapes in layers.items()}


def _pair(note: str) -> tuple[str, str]:
    name, _, text = note.partition(": ")
    return name, text
