"""What a user holds: an algorithm on an environment, that learns, acts, explains itself, and is saved."""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import jax
import numpy as np

from renshu import runtime
from renshu.algorithms.base import Algorithm
from renshu.algorithms.hyperparameters import Number
from renshu.envs.adapt import fit
from renshu.envs.source import EnvSource
from renshu.errors import CheckpointError, HyperparameterError, SpaceError
from renshu.evaluation import Evaluation
from renshu.grounds import CompiledGround, HostGround, ground
from renshu.loops.programs import Programs
from renshu.loops.report import Clock
from renshu.ops.spaces import alike, batched
from renshu.types import EnvSpec, PyTree

if TYPE_CHECKING:
    from renshu.callbacks import Callback
    from renshu.loops.compiled import CompiledLoop
    from renshu.loops.host import HostLoop
    from renshu.tracking.run import Run

runtime.prepare()

Ground = HostGround | CompiledGround

COUNT = Number("a number of things", integer=True, least=1)
SEED = Number("the root of all randomness", integer=True, least=0, most=2**32 - 1)


@partial(jax.jit, static_argnums=1)
def streams(seed: int, count: int) -> list[jax.Array]:
    """Keys of one root: initialisation, training, predictions, evaluation."""
    return [jax.random.fold_in(jax.random.key(seed), i) for i in range(count)]


class Agent:
    """An algorithm on an environment.

    algorithm: hyperparameters, as in `PPO(n_steps=256)`. env: a Gymnasium id, an environment, a class or function that
    makes one, a vector environment, or a DeviceEnv. num_envs: how many step together (a vector environment brings its
    own number). seed: of everything; None draws one, which `summary()` shows. loop: "host" or "compiled"; None takes
    the compiled one for a DeviceEnv. processes: True steps each environment in a worker process of its own. timeout:
    seconds after which a worker that does not answer counts as hanging.
    env_kwargs: what `gymnasium.make` gets beside the id.

    Raises UnknownNameError, SpaceError, HyperparameterError before anything is trained.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        env: Any,
        *,
        num_envs: int | None = None,
        seed: int | None = None,
        loop: str | None = None,
        processes: bool = False,
        timeout: float = 120.0,
        env_kwargs: dict[str, Any] | None = None,
    ) -> None:
        source = EnvSource.of(env, env_kwargs)
        count = None if num_envs is None else COUNT.check("num_envs", num_envs)
        self._ground: Ground | None = ground(source, count, loop=loop, processes=processes, timeout=timeout)
        self.processes, self.timeout, self.loop_wanted = processes, timeout, loop
        try:
            self._bind(algorithm, self._ground.spec(), seed)
        except BaseException:
            self._ground.refuse()
            raise
        self._state = self.programs.init(self.keys[0])

    @classmethod
    def trained(
        cls, algorithm: Algorithm, place: Ground, seed: int, state: Any, *, steps: int, iteration: int
    ) -> Agent:
        """An agent whose state was learned elsewhere, as in an experiment."""
        agent = cls.__new__(cls)
        agent._ground, agent.processes, agent.timeout, agent.loop_wanted = place, False, 120.0, place.loop_name
        agent._bind(algorithm, place.spec(), seed)
        agent._state, agent._steps, agent._iteration, agent.target = state, steps, iteration, steps
        agent._restarts = 1
        return agent

    def _bind(self, algorithm: Algorithm, spec: EnvSpec, seed: int | None) -> None:
        self.algorithm, self.spec = algorithm, spec
        self.seed = secrets.randbelow(2**31) if seed is None else SEED.check("seed", seed)
        self.keys = streams(np.uint32(self.seed), 4)
        own = getattr(algorithm, "network", None) is not None
        self.fitted = fit(spec, algorithm.accepts, algorithm=type(algorithm).__name__, own_network=own)
        self.learner = algorithm.build(self.fitted.spec)
        self.programs = Programs(self.learner)
        self.run: Run | None = None
        self.last_run: Run | None = None
        self.recent_returns: deque[float] = deque(maxlen=100)
        self.recent_lengths: deque[int] = deque(maxlen=100)
        self._loop: HostLoop | CompiledLoop | None = None
        self._snapshot: PyTree = None  # where a compiled loop stood
        self._prediction_keys = self.programs.key_stream(self.keys[2])
        self._iteration = self._steps = self._restarts = 0
        self.target: int | None = None  # steps at which the latest call of learn ends, or was to end

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The environment's name."""
        return self._ground.source.name if self._ground is not None else self.spec.id or "environment"

    @property
    def loop_name(self) -> str | None:
        """The loop that trains it, "host" or "compiled"; None for one that was loaded and has no environment yet."""
        return None if self._ground is None else self._ground.loop_name

    @property
    def title(self) -> str:
        """Algorithm and environment: "ppo CartPole-v1"."""
        return f"{type(self.algorithm).__name__.lower()} {self.name}"

    @property
    def state(self) -> Any:
        """The learner's whole state, a pytree of arrays."""
        return self._loop.state if self._loop is not None else self._state

    @state.setter
    def state(self, state: Any) -> None:
        if self._loop is not None:
            self._loop.state = state
        else:
            self._state = state

    @property
    def parameters(self) -> PyTree:
        """The weights, a pytree of arrays. They are replaced, not changed, when the agent learns."""
        return self.state.params

    @property
    def steps(self) -> int:
        """Environment steps learned from, over all calls of learn."""
        return self._loop.episodes.steps if self._loop is not None else self._steps

    @property
    def clock(self) -> Clock:
        """Seconds that training spent acting, stepping environments and learning, since the loop began."""
        return self._loop.clock if self._loop is not None else Clock()

    @property
    def iteration(self) -> int:
        """Rollouts learned from."""
        return self._loop.iteration if self._loop is not None else self._iteration

    def __repr__(self) -> str:
        return f"<Agent: {self.algorithm!r} on {self.name}, {self.steps:,} steps>"

    def summary(self) -> None:
        """Print what was fitted to what and why, and the size of it all."""
        from renshu.description import describe_agent

        print(describe_agent(self))

    # --- learning ---------------------------------------------------------------------------------------------------

    def learn(
        self,
        total_steps: int | None = None,
        *,
        progress: bool = True,
        run: Run | str | Path | bool | None = None,
        callbacks: Callback | Callable | Iterable[Callback | Callable] = (),
        stop_at: float | str | None = None,
        eval_every: int | None = None,
        eval_episodes: int = 10,
        checkpoint_every: int | None = None,
    ) -> Agent:
        """Train for `total_steps` more environment steps; returns the agent itself.

        progress: a progress bar. run: a folder that keeps everything about this training (True: `runs/NAME-1`, ...).
        callbacks: functions of (agent, metrics) that may return False to stop, or Callbacks. stop_at: stop when the
        mean return of the last 100 episodes reaches this; "threshold" is the environment's own. eval_every: steps
        between evaluations of `eval_episodes` episodes, the best agent is kept in the run folder. checkpoint_every:
        steps between checkpoints there. After `Agent.resume`, `total_steps=None` goes on to where the run would end.

        Raises NotFiniteError, EnvironmentFault; the agent then keeps its state from before the bad rollout.
        """
        from renshu.training import learn

        learn(
            self,
            total_steps,
            run=run,
            progress=progress,
            callbacks=callbacks,
            stop_at=stop_at,
            eval_every=eval_every,
            eval_episodes=eval_episodes,
            checkpoint_every=checkpoint_every,
        )
        return self

    def set_target(self, total_steps: int | None) -> int:
        """Aim at `total_steps` more than there are, or at the earlier aim for None; schedules end there.

        Returns the steps to reach. Raises HyperparameterError where there is nothing to aim at.
        """
        if total_steps is None:
            if self.target is None or self.target <= self.steps:
                raise HyperparameterError("learn needs the number of environment steps, as in learn(100_000)")
            return self.target
        target = self.steps + COUNT.check("total_steps", total_steps)
        counters = self.state.counters._replace(start=jax.numpy.int32(self.steps), target=jax.numpy.int32(target))
        self.state, self.target = self.state._replace(counters=counters), target
        return target

    def start_loop(self, uninterrupted: Callable) -> HostLoop | CompiledLoop:
        """The loop that trains this agent: the one of the last call of learn, or a new one on fresh environments."""
        if self._loop is None:
            self._loop = self.ground.loop(
                self.programs,
                self._state,
                self.fitted.decode_action,
                key=self.keys[1],
                seed=self._env_seed(0, self._restarts, self._steps),
                iteration=self._iteration,
                steps=self._steps,
                snapshot=self._snapshot,
            )
        self._loop.uninterrupted = uninterrupted
        return self._loop

    def snapshot(self) -> PyTree:
        """Where the environments of training stand, as arrays; None in the host loop, whose cannot be saved."""
        return self._loop.snapshot() if self._loop is not None else self._snapshot

    def drop_loop(self) -> None:
        """Forget the environments of training, as after a fault; the next call of learn starts with new ones."""
        if self._loop is not None:
            self._state, self._iteration, self._steps = self.state, self.iteration, self.steps
            self._loop = None
        self._snapshot = None
        self._restarts += 1
        if self._ground is not None:
            self._ground.drop()

    @property
    def ground(self) -> Ground:
        """The environments. An agent that was loaded makes them when it first needs them."""
        if self._ground is None:
            if self.spec.id is None or ":" in self.spec.id:
                raise CheckpointError(
                    "this agent was loaded from a file, which does not say how to make its environment: "
                    "pass it, as in load(path, env=MyEnv)"
                )
            self._ground = self.ground_of(EnvSource.of(self.spec.id, dict(self.spec.kwargs)), self.spec.num_envs)
        return self._ground

    def ground_of(self, source: EnvSource, num_envs: int | None) -> Ground:
        """Environments of a source, run as this agent's."""
        return ground(source, num_envs, loop=self.loop_wanted, processes=self.processes, timeout=self.timeout)

    def _env_seed(self, *stream: int) -> int:
        if not any(stream):
            return self.seed
        return int(np.random.SeedSequence([self.seed, *stream]).generate_state(1)[0] % 2**31)

    def on(self, env: Any, *, num_envs: int | None = None, seed: int | None = None, **options: Any) -> Agent:
        """The same agent in another environment of the same spaces: a new Agent that carries on from this state.

        Raises SpaceError where observations or actions have other shapes.
        """
        if num_envs is None and not isinstance(env, gymnasium.vector.VectorEnv):
            num_envs = self.spec.num_envs
        other = Agent(self.algorithm, env, num_envs=num_envs, seed=self.seed if seed is None else seed, **options)
        try:
            self._check_alike(other.name, other.spec.observation_space, other.spec.action_space)
        except SpaceError:
            other.close()
            raise
        state = other.learner.adopt(jax.tree.map(jax.numpy.copy, self.state))
        other._state, other._steps, other._iteration = state, self.steps, self.iteration
        return other

    def _check_alike(self, name: str, observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
        if not (alike(observation_space, self.spec.observation_space) and alike(action_space, self.spec.action_space)):
            raise SpaceError(
                f"the agent learned observations of {self.spec.observation_space} and actions of "
                f"{self.spec.action_space}; {name} has {observation_space} and {action_space}, which do not fit"
            )

    # --- acting -----------------------------------------------------------------------------------------------------

    def predict(self, observation: PyTree, *, deterministic: bool = True) -> Any:
        """The action for one observation, or actions `[B, ...]` for a batch, as the environment takes them.

        deterministic: the greedy action; otherwise one is drawn from the policy. Raises SpaceError where the
        observation has another shape than the environment's.
        """
        obs, batch, single = batched(self.spec.observation_space, observation)
        act = self.programs.act_greedy if deterministic else self.programs.act
        first = np.zeros(batch, np.bool_)
        carry = self.learner.carry(batch)
        chosen = act(self.learner.view(self.state), carry, obs, first, *next(self._prediction_keys))
        actions = self.fitted.decode_action(np.asarray(chosen.action))
        return actions[0] if single else actions

    def explain(self, observation: PyTree) -> dict[str, np.ndarray]:
        """What the agent thinks of an observation, or of a batch of them.

        Returns the "value" (expected discounted return), and "probabilities" of the actions, or "mean" and "std" of
        continuous ones.
        """
        obs, batch, single = batched(self.spec.observation_space, observation)
        found = self.programs.explain(self.learner.view(self.state), self.learner.carry(batch), obs)
        return {name: np.asarray(value)[0] if single else np.asarray(value) for name, value in found.items()}

    def evaluate(
        self,
        episodes: int = 20,
        *,
        deterministic: bool = True,
        seed: int | None = None,
        env: Any = None,
        num_envs: int | None = None,
    ) -> Evaluation:
        """Run whole episodes in environments apart from those of training, which are not disturbed.

        deterministic: greedy actions. seed: of the environments; None gives the same episodes each time. env: another
        environment, as for Agent. num_envs: how many step together, at most 10 by default.
        """
        episodes = COUNT.check("episodes", episodes)
        count = min(episodes, COUNT.check("num_envs", 10 if num_envs is None else num_envs))
        where = self.ground
        if env is not None:
            where = ground(EnvSource.of(env), None, loop=None, processes=False, timeout=self.timeout)
        try:
            if env is not None:
                spec = where.spec()
                self._check_alike(where.source.name, spec.observation_space, spec.action_space)
            return where.evaluate(
                self.programs,
                self.learner.view(self.state),
                self.fitted.decode_action,
                count=count,
                episodes=episodes,
                deterministic=deterministic,
                seed=self._env_seed(1) if seed is None else seed,
                key=self.keys[3],
            )
        finally:
            if env is not None:
                where.refuse()

    def record(
        self,
        path: str | Path,
        *,
        episodes: int = 1,
        deterministic: bool = True,
        seed: int | None = None,
        env: Any = None,
    ) -> Path:
        """Play episodes and save them as a video, `.mp4` or `.gif`. Returns the path.

        env: another environment than the agent's own; it must render to "rgb_array".
        """
        from renshu.recording import episode_frames, write_video

        source = self.ground.source if env is None else EnvSource.of(env)
        if not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # or SDL would look for a screen, and complain
        player = source.single(render_mode="rgb_array")
        seed = self._env_seed(2) if seed is None else seed
        try:
            frames = episode_frames(
                player, partial(self.predict, deterministic=deterministic), episodes=episodes, seed=seed
            )
            write_video(Path(path), frames, fps=int(player.metadata.get("render_fps") or 30))
        finally:
            player.close()
        return Path(path)

    def watch(
        self, episodes: int = 1, *, deterministic: bool = True, seed: int | None = None, terminal: bool = False
    ) -> list[tuple[float, int]]:
        """Play episodes in a window, or step by step in the terminal; returns (return, length) of each."""
        seed = self._env_seed(2) if seed is None else seed
        if terminal:
            from renshu.terminal import step_through

            return step_through(self, self.ground.source, episodes, seed, deterministic)
        from renshu.recording import play

        player = self.ground.source.single(render_mode="human")
        try:
            return list(play(player, partial(self.predict, deterministic=deterministic), episodes, seed))
        finally:
            player.close()

    # --- keeping ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Save weights, optimiser, normaliser, hyperparameters and spaces in one file that holds no code."""
        from renshu.saving import save

        return save(self, Path(path))

    def checkpoint(self, keep: int = 3) -> Path:
        """Save the whole training state in the run folder, where the newest `keep` stay."""
        if self.run is None:
            raise HyperparameterError("there is no run folder to keep a checkpoint in: agent.learn(..., run='runs/a')")
        path = self.save(self.run.checkpoint_path(self.steps))
        self.run.keep_checkpoints(keep)
        return path

    @classmethod
    def resume(cls, run: Run | str | Path, *, env: Any = None, **overrides: Any) -> Agent:
        """The agent of a run folder as of its newest checkpoint; `agent.learn()` goes on from there in that folder.

        env: the environment, where the run does not say how to make it. overrides: hyperparameters that no file can
        hold, as `network=MyNet`.
        """
        from renshu.saving import resume

        return resume(run, env=env, **overrides)

    def close(self) -> None:
        """Close all environments. The agent can still act, and makes new ones when it needs them."""
        self.drop_loop()
        if self._ground is not None:
            self._ground.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
