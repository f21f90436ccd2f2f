"""Evaluation on an actor of its own, where a cluster trains: training does not wait for it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renshu.algorithms.registry import agent_class
from renshu.envs.sending import pickled
from renshu.loops.ray_actors import fetch, is_ready, on_cpu_without_gpu

if TYPE_CHECKING:
    from renshu.agent.agent import Agent
    from renshu.loops.evaluation import Evaluation


class Later:
    """An evaluation under way: of the agent as it was at `steps`, whose file is `content`."""

    def __init__(self, steps: int, content: bytes, reference: Any) -> None:
        self.steps, self.content, self._reference = steps, content, reference

    def ready(self) -> bool:
        """Tell whether the result is there."""
        return is_ready(self._reference)

    def result(self) -> Evaluation:
        """Return the result; wait for it where it is not there. Raises EnvironmentFault where there will be none."""
        return fetch(self._reference, f"the evaluation after step {self.steps:,}")


class RemoteEvaluator:
    """The actor: one agent, which takes over the state of each file that it gets."""

    def __init__(self) -> None:
        self._agent: Any = None

    def evaluate(self, content: bytes, how: bytes, episodes: int) -> Evaluation:
        """Evaluate the agent of a file. how: pickled, environment, class and arguments of `Agent.load`."""
        import cloudpickle

        on_cpu_without_gpu()
        env, algorithm, overrides = cloudpickle.loads(how)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "agent.safetensors"
            path.write_bytes(content)
            newer = agent_class().load(path, env=env, algorithm=algorithm, **overrides)
        self._agent = self._agent or newer
        self._agent.trainer.state = newer.trainer.state
        return self._agent.evaluate(episodes)


def evaluate_later(agent: Agent, episodes: int) -> Later | None:
    """Have an agent evaluated on an actor of its own; None where no cluster trains it."""
    backend = agent.trainer.backend
    if backend.loop_name != "cluster":
        return None
    with tempfile.TemporaryDirectory() as folder:
        content = agent.save(Path(folder) / "agent.safetensors").read_bytes()
    given = backend.source.given
    how = pickled((given, type(agent.algorithm), agent.algorithm.unsaved()), given, agent.name)
    actor: Any = backend.evaluator(RemoteEvaluator)  # type: ignore[union-attr]
    return Later(agent.steps, content, actor.evaluate.remote(content, how, episodes))
