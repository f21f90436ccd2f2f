"""What a user holds: an algorithm on an environment, that learns, acts, explains itself, and is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import jax
import numpy as np

from renshu.algorithms.base import Algorithm
from renshu.envs.adapt import USUAL
from renshu.envs.masks import has_mask
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError, SpaceError
from renshu.evaluation import Evaluation
from renshu.grounds import ground
from renshu.ops.masks import batched_with_mask
from renshu.ops.spaces import alike, batched
from renshu.trainee import COUNT, TIMEOUT, Trainee, fitted_to
from renshu.types import EnvSpec, PyTree

if TYPE_CHECKING:
    from renshu.callbacks import Callback
    from renshu.tracking.run import Run


class Agent(Trainee):
    """An algorithm on an environment.

    algorithm: hyperparameters, as in `PPO(n_steps=256)`. env: a Gymnasium id, an environment, a class or function that
    makes one, a vector environment, or a DeviceEnv. num_envs: how many step together (a vector environment brings its
    own number). seed: of everything; None draws one, which `summary()` shows. loop: "host" or "compiled"; None takes
    the compiled one for a DeviceEnv. processes: True steps each environment in a worker process of its own. timeout:
    seconds after which a worker that does not answer counts as hanging.
    bins: for an algorithm of Discrete actions in an environment of Box actions, how many points of each dimension it
    chooses from, ends included; several numbers are one for each dimension; None is 5. history: how many of the last
    observations it sees at once; None is 1. masks: whether actions that the environment's mask does not allow are left
    out; None: where the environment gives masks and the algorithm takes them, True: or else it is an error.
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
        timeout: float = TIMEOUT,
        bins: int | Sequence[int] | None = None,
        history: int | None = None,
        masks: bool | None = None,
        env_kwargs: dict[str, Any] | None = None,
    ) -> None:
        fitting, takes = USUAL.but(bins, history, masks), algorithm.accepts.masks and masks is not False
        source = EnvSource.of(env, env_kwargs).with_masks(None if takes else False)
        count = None if num_envs is None else COUNT.check("num_envs", num_envs)
        place = ground(source, count, loop=loop, processes=processes, timeout=timeout)
        try:
            spec = place.spec()
            if masks is None:
                fitting = fitting.but(masks=takes and has_mask(spec.observation_space, spec.action_space))
            place.source = source.with_masks(fitting.masks)
            super().__init__(algorithm, spec, seed, fitting, place, loop=loop, processes=processes, timeout=timeout)
        except BaseException:
            place.refuse()
            raise
        self.init_state()

    @classmethod
    def stateless(cls, *args: Any, **options: Any) -> Agent:
        """An agent that waits for `take_up`. Arguments as for Trainee."""
        agent = cls.__new__(cls)
        Trainee.__init__(agent, *args, **options)
        return agent

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """Algorithm and environment: "ppo CartPole-v1"."""
        return f"{type(self.algorithm).__name__.lower()} {self.name}"

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

    def on(
        self,
        env: Any,
        *,
        num_envs: int | None = None,
        seed: int | None = None,
        bins: int | Sequence[int] | None = None,
        history: int | None = None,
        masks: bool | None = None,
        **options: Any,
    ) -> Agent:
        """The same agent in another environment of the same spaces: a new Agent that carries on from this state.

        Raises SpaceError where observations or actions have other shapes.
        """
        if num_envs is None and not isinstance(env, gymnasium.vector.VectorEnv):
            num_envs = self.spec.num_envs
        fitting, seed = self.fitting.but(bins, history, masks), self.seed if seed is None else seed
        options |= {"bins": fitting.bins, "history": fitting.history, "masks": fitting.masks}
        other = Agent(self.algorithm, env, num_envs=num_envs, seed=seed, **options)
        try:
            for ours, theirs in ((self.spec, other.spec), (self.fitted.spec, other.fitted.spec)):
                _check_alike(other.name, ours, theirs)
        except SpaceError:
            other.close()
            raise
        state = other.learner.adopt(jax.tree.map(jax.numpy.copy, self.state))
        other._state, other._steps, other._iteration = state, self.steps, self.iteration
        return other

    # --- acting -----------------------------------------------------------------------------------------------------

    def predict(self, observation: PyTree, action_mask: Any = None, *, deterministic: bool = True) -> Any:
        """The action for one observation, or actions `[B, ...]` for a batch, as the environment takes them.

        Each observation counts as the first of an episode; to go on in one, see `player`. action_mask: which actions
        are allowed, `[n]` or `[B, n]`, for an agent that learned with masks; None: as the observation says, or all.
        deterministic: the greedy action; otherwise one is drawn from the policy. Raises SpaceError where observation
        or mask have another shape than the environment's.
        """
        obs, batch, single = self._batched(observation, action_mask)
        actions, _ = self._choose(obs, np.ones(batch, np.bool_), self.learner.carry(batch), deterministic)
        return actions[0] if single else actions

    def player(self, *, deterministic: bool = True) -> Callable[[PyTree, bool], Any]:
        """A policy for one environment: an action for an observation and whether that is the first of its episode.

        Where the algorithm uses what came before in the episode this policy remembers it, which `predict` does not.
        """
        carry = self.learner.carry(1)

        def policy(observation: PyTree, first: bool) -> Any:
            nonlocal carry
            obs, _, _ = self._batched(observation)
            actions, carry = self._choose(obs, np.array([first]), carry, deterministic)
            return actions[0]

        return policy

    def _batched(self, observation: PyTree, action_mask: Any = None) -> tuple[PyTree, int, bool]:
        if self.fitted.spec.masks:
            return batched_with_mask(self.spec.observation_space, observation, action_mask)
        if action_mask is not None:
            raise SpaceError(f"this agent learned without masks of its {self.spec.action_space} actions: give none")
        return batched(self.spec.observation_space, observation)

    def _choose(self, obs: PyTree, first: np.ndarray, carry: PyTree, deterministic: bool) -> tuple[Any, PyTree]:
        act = self.programs.act_greedy if deterministic else self.programs.act
        chosen = act(self.learner.view(self.state), carry, obs, first, *next(self._prediction_keys))
        return self.fitted.decode_action(np.asarray(chosen.action)), chosen.carry

    def explain(self, observation: PyTree, action_mask: Any = None) -> dict[str, np.ndarray]:
        """What the agent thinks of an observation, or of a batch of them. action_mask: as for `predict`.

        Returns the "value" (expected discounted return), and "probabilities" of the actions, or "mean" and "std" of
        continuous ones, or "action_values". An action that is not allowed has probability 0 or the value -inf.
        """
        obs, batch, single = self._batched(observation, action_mask)
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
        where, fitted = self.ground, self.fitted
        if env is not None:
            where = ground(self._source(env), None, loop=None, processes=False, timeout=self.timeout)
        try:
            if env is not None:
                spec = where.spec()
                _check_alike(where.source.name, self.spec, spec)
                fitted = fitted_to(self.algorithm, spec, self.fitting)
                _check_alike(where.source.name, self.fitted.spec, fitted.spec)
            return where.evaluate(
                self.programs,
                self.learner.view(self.state),
                fitted.decode_action,
                count=count,
                episodes=episodes,
                deterministic=deterministic,
                seed=self.env_seed(1) if seed is None else seed,
                key=self.keys[3],
            )
        finally:
            if env is not None:
                where.refuse()

    def _source(self, env: Any) -> EnvSource:
        """Another environment, its masks as this agent knows them."""
        return EnvSource.of(env).with_masks(self.fitting.masks)

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
        from renshu.recording import record

        source = self.ground.source if env is None else self._source(env)
        seed = self.env_seed(2) if seed is None else seed
        record(Path(path), source, self.player(deterministic=deterministic), episodes, seed)
        return Path(path)

    def watch(
        self, episodes: int = 1, *, deterministic: bool = True, seed: int | None = None, terminal: bool = False
    ) -> list[tuple[float, int]]:
        """Play episodes in a window, or step by step in the terminal; returns (return, length) of each."""
        seed = self.env_seed(2) if seed is None else seed
        if terminal:
            from renshu.terminal import step_through

            return step_through(self, self.ground.source, episodes, seed, deterministic)
        from renshu.recording import watch

        return watch(self.ground.source, self.player(deterministic=deterministic), episodes, seed)

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

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_alike(name: str, ours: EnvSpec, theirs: EnvSpec) -> None:
    """Raise SpaceError where what was learned by one spec is of no use by the other, that of the environment `name`."""
    spaces = (ours.observation_space, theirs.observation_space), (ours.action_space, theirs.action_space)
    if not all(alike(a, b) for a, b in spaces) or ours.history != theirs.history:
        raise SpaceError(f"the agent learned {_seen(ours)}; {name} has {_seen(theirs)}, which do not fit")


def _seen(spec: EnvSpec) -> str:
    several = f" ({spec.history} at once)" if spec.history > 1 else ""
    return f"observations of {spec.observation_space}{several} and actions of {spec.action_space}"
