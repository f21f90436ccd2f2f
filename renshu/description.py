"""An agent in words: what was fitted to what and why, and the size of it all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import numpy as np

if TYPE_CHECKING:
    from renshu.agent import Agent


def describe_agent(agent: Agent) -> str:
    """Return several lines for `agent.summary()`."""
    algorithm = agent.algorithm
    changed = [
        f"{field.name}={getattr(algorithm, field.name)!r}"
        for field in dataclasses.fields(algorithm)
        if getattr(algorithm, field.name) != getattr(type(algorithm)(), field.name)
    ]
    spec = agent.spec
    limit = f"{spec.max_episode_steps} steps an episode" if spec.max_episode_steps else "no time limit known"
    threshold = f", solved at {spec.reward_threshold:g}" if spec.reward_threshold is not None else ""
    lines = [
        f"{type(algorithm).__name__} on {agent.name}: {agent.steps:,} steps learned, seed {agent.seed}",
        f"  hyperparameters  {', '.join(changed) or 'defaults'}",
        f"  environment      {spec.num_envs} at once{' in processes' if agent.processes else ''}, {limit}{threshold}",
        *(f"  {note.partition(': ')[0]:<16} {note.partition(': ')[2]}" for note in agent.fitted.notes),
        f"  rollout          {agent.learner.rollout_length} steps of each environment",
        f"  parameters       {sum(int(np.size(x)) for x in jax.tree.leaves(agent.parameters)):,}",
    ]
    for path, leaf in jax.tree_util.tree_leaves_with_path(agent.parameters):
        name = "/".join(str(getattr(key, "key", key)) for key in path)
        lines.append(f"    {name:<40} {'x'.join(map(str, leaf.shape)) or 'scalar'}")
    return "\n".join(lines)
