"""Agent: an algorithm on an environment, that learns, acts, explains itself, and is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from renshu.agent import acting, collecting, players, training
from renshu.agent.loading import load_trainer, resume_trainer, save_checkpoint, save_trainer
from renshu.agent.members import member_of
from renshu.agent.options import COUNT, answering
from renshu.agent.pictures import save_pictures
from renshu.agent.readings import Readings
from renshu.agent.summary import describe
from renshu.agent.trainer import TIMEOUT, Trainer
from renshu.algorithms import migration
from renshu.algorithms.base import Algorithm
from renshu.errors import SpaceError
from renshu.files.datasets import Dataset
from renshu.loops.evaluation import Evaluation
from renshu.tracking.provenance import writing
from renshu.types import PyTree
from renshu.viewing import play, recording
from renshu.viewing.notebook import Shown

if TYPE_CHECKING:
    from renshu.agent.callbacks import Callback
    from renshu.arena.match import Result
    from renshu.loops.cluster_settings import Cluster
    from renshu.tracking.run import Run


class Agent(Readings):
    """An algorithm on an environment.

    algorithm: hyperparameters, as in `PPO(n_steps=256)`. env: a Gymnasium id, an environment, a class or function that
    makes one, a vector environment, or a DeviceEnv. num_envs: how many step together (a vector environment brings its
    own number). seed: of everything; None draws one, which `summary()` shows. loop: "host", "compiled" or "cluster";
    None takes the compiled one for a DeviceEnv. workers: actors of a Ray cluster that collect, each in `num_envs`
    environments; cluster: more about it, see `renshu.Cluster`. processes: True steps each environment in a worker
    process of its own. timeout: seconds after which a worker that does not answer counts as hanging.
    bins: for an algorithm of Discrete actions in an environment of Box actions, how many points of each dimension it
    chooses from, ends included; several numbers are one for each dimension; None is 5. frame_stack: latest observations
    that it sees at once; None is 1. masks: whether to leave out actions that the environment's mask does not allow;
    None: where there are masks and the algorithm takes them, True: or else it is an error. max_episode_steps: a time
    limit, counted around the environment; None for its own. env_kwargs: arguments of `gymnasium.make` besides the id.
    opponent: in games, for an algorithm that moves for one player: "random" (None too), "self" (copies of its own past,
    see `renshu.envs.self_play.SelfPlay`), an agent, or a function (key, observation, legal actions) -> action.

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
        frame_stack: int | None = None,
        masks: bool | None = None,
        max_episode_steps: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
        workers: int | None = None,
        cluster: Cluster | None = None,
        opponent: Any = None,
        **unknown: Any,
    ) -> None:
        if answer := migration.environment(type(algorithm).__name__, env):
            raise SpaceError(answer)
        fits: Any = {"bins": bins, "frame_stack": frame_stack, "masks": masks, "max_episode_steps": max_episode_steps}
        how: Any = {"loop": loop, "processes": processes, "timeout": timeout, "workers": workers, "cluster": cluster}
        more: Any = {"num_envs": num_envs, "seed": seed, "env_kwargs": env_kwargs, "opponent": opponent}
        self.trainer = Trainer.on(algorithm, env, **fits, **how, **more, **unknown)

    @classmethod
    def of_trainer(cls, trainer: Trainer) -> Agent:
        """Make the agent of a trainer that has its state already."""
        agent = cls.__new__(cls)
        agent.trainer = trainer
        return agent

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):
                return object.__getattribute__(self, name)  # a property that failed: with its own error
            trainer = vars(self).get("trainer")  # none yet, where it is being copied
            raise AttributeError(migration.attribute(name, getattr(trainer, "algorithm", None)))

    def __dir__(self) -> list[str]:
        """Names that are for users: `trainer` is how it works, and changes."""
        return [name for name in super().__dir__() if name not in ("trainer", "of_trainer")]

    def __repr__(self) -> str:
        return f"<Agent: {self.algorithm!r} on {self.name}, {self.steps:,} steps>"

    def summary(self) -> None:
        """Print what was fitted to what and why, and the size of it all."""
        print(describe(self.trainer))

    # --- learning ---------------------------------------------------------------------------------------------------

    @answering(migration.LEARN)
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
        restart_schedules: bool = True,
    ) -> Agent:
        """Train for `total_steps` more environment steps; returns the agent itself.

        progress: a progress bar. run: a folder that keeps everything about this training (True: `runs/NAME-1`, ...).
        callbacks: functions of (agent, metrics) that may return False to stop, or Callbacks. stop_at: stop when the
        mean return of the recent episodes reaches this; "threshold" is the environment's own. eval_every: steps
        between evaluations of `eval_episodes` episodes, the best agent is kept in the run folder. checkpoint_every:
        steps between checkpoints there. After `Agent.resume`, `total_steps=None` goes on to where the run would end.
        restart_schedules: in more training, schedules of learning rates and the like begin again; False stretches them
        over all steps from the first (Stable-Baselines3's `reset_num_timesteps=False`). Epsilon never rises again.

        Raises NotFiniteError, EnvironmentFault; the agent then keeps its state from before the bad rollout.
        """
        training.learn(
            self,
            total_steps,
            run=run,
            progress=progress,
            callbacks=callbacks,
            stop_at=stop_at,
            eval_every=eval_every,
            eval_episodes=eval_episodes,
            checkpoint_every=checkpoint_every,
            restart_schedules=restart_schedules,
        )
        return self

    def collect(self, steps: int, to: str | Path | None = None) -> Dataset | Agent:
        """Act for `steps` environment steps without learning from them, exploring as in training.

        to: a folder, which must be new or empty: they are written there, in environments apart from those of training,
        and the Dataset is returned. None: they go into the memory, for algorithms that have one, and the agent itself
        is returned. Collected are whole rollouts, so there may be a few more steps.

        Raises HyperparameterError for an algorithm without a memory, CheckpointError where nothing can be written.
        """
        return collecting.collect(self.trainer, COUNT.check("steps", steps), to) or self

    def dataset(self) -> Dataset:
        """Return a copy of the memory of an algorithm that learns from replay, to save or to learn from elsewhere."""
        return collecting.memory_of(self.trainer)

    def on(
        self,
        env: Any,
        *,
        num_envs: int | None = None,
        seed: int | None = None,
        bins: int | Sequence[int] | None = None,
        frame_stack: int | None = None,
        masks: bool | None = None,
        **options: Any,
    ) -> Agent:
        """Put the agent into another environment of the same spaces: a new Agent that carries on from this state.

        Raises SpaceError where observations or actions have other shapes.
        """
        if num_envs is None and not isinstance(env, gymnasium.vector.VectorEnv | Dataset):
            num_envs = self.spec.num_envs
        fits = self.trainer.space_config.override(bins, frame_stack, masks)
        options |= {"bins": fits.bins, "frame_stack": fits.frame_stack, "masks": fits.masks}
        other = Agent(self.algorithm, env, num_envs=num_envs, seed=self.seed if seed is None else seed, **options)
        acting.hand_over(self.trainer, other.trainer)
        return other

    def start_from(self, other: Agent) -> Agent:
        """Take over the weights of another agent's networks, of those parts that both have; the rest begins anew.

        So a gradient learner goes on from what evolution has found, and the other way round: their policies are the
        same networks where net_arch, activation_fn, norm_obs and squash_output are; with norm_obs the statistics of
        observations come along.

        Raises HyperparameterError where networks differ, or the algorithm cannot; SpaceError for other spaces.
        """
        acting.check_compatible(self.name, other.trainer.fitted.spec, self.trainer.fitted.spec)
        acting.start_from(self.trainer, other.trainer)
        return self

    def member(self, which: str | int | Sequence[float]) -> Agent:
        """Return one of the population of an evolutionary algorithm as an agent, which plays, or is saved, by itself.

        which: "mean", about which members are drawn, or "best", where the algorithm has those (ES: of all generations,
        at the seeds that it met; NEAT: of the latest); or the number of a member of the next generation; or for
        MAPElites a behavior, of which it takes the elite that is nearest. To learn, it goes on with the whole
        population. Raises HyperparameterError where there is no such member.
        """
        return Agent.of_trainer(member_of(self.trainer, which))

    @answering(migration.PREDICT)
    def predict(
        self,
        observation: PyTree,
        action_mask: Any = None,
        *,
        carry: Any = None,
        first: Any = None,
        deterministic: bool = True,
        env_state: PyTree = None,
        search: bool = True,
    ) -> Any:
        """Choose the action for one observation, or actions `[B, ...]` for a batch, as the environment takes them.

        Each observation counts as the first of an episode, unless a carry is given: () at first, then what the call
        before returned; then (action, carry) is returned. `player` does so by itself. first: [B] bool, which of a batch
        begin an episode; None: all where the carry is (). action_mask: which are allowed, `[n]` or `[B, n]`, where the
        agent learned with masks; None: as the observation says, or all. deterministic: the greedy action; otherwise one
        is drawn. env_state: for an algorithm that plans in it, the environment's own, or a batch; search=False has the
        network choose instead. Raises SpaceError where observation or mask have another shape than the environment's.
        """
        return acting.predict(
            self.trainer, observation, action_mask, deterministic, carry, first, env_state=env_state, search=search
        )

    def player(self, *, deterministic: bool = True) -> acting.Player:
        """Make a policy for one environment: from an observation and whether it is an episode's first to an action.

        Where the algorithm uses what came before in the episode this policy remembers it, which `predict` does not.
        Where it plans the environment's own state is a third argument.
        """
        return acting.Player(self.trainer, deterministic)

    def explain(
        self, observation: PyTree, action_mask: Any = None, *, env_state: PyTree = None, carry: PyTree = None
    ) -> dict[str, np.ndarray]:
        """Explain the choice for an observation, or for a batch of them. action_mask: as for `predict`.

        Returns the "value" (expected discounted return), and "probabilities" of the actions, or "mean" and "std" of
        continuous ones, or "action_values". An action that is not allowed has probability 0 or the value -inf.
        env_state: for an algorithm that plans; then the search's "search_policy", "action_values" and "visits", too.
        carry: the memory before this observation, as `predict` returned it; None at the first of an episode.
        """
        return acting.explain(self.trainer, observation, action_mask, env_state, carry)

    def snapshot(self) -> acting.Snapshot:
        """Make an acting copy for another thread, refreshed at each update of `learn` as long as it exists."""
        return acting.Snapshot(self.trainer)

    @answering(migration.EVALUATE)
    def evaluate(
        self,
        episodes: int = 20,
        *,
        deterministic: bool = True,
        seed: int | None = None,
        env: Any = None,
        num_envs: int | None = None,
        opponent: Any = None,
    ) -> Evaluation:
        """Run whole episodes in environments apart from those of training, which are not disturbed.

        deterministic: greedy actions. seed: of the environments; None gives the same episodes each time. env: another
        environment, as for Agent. num_envs: how many step together, at most 10 by default. opponent: in games, as for
        Agent; of an algorithm that moves for all players the seats but one are taken from it.
        """
        episodes = COUNT.check("episodes", episodes)
        count = min(episodes, COUNT.check("num_envs", 10 if num_envs is None else num_envs))
        how: dict[str, Any] = {"count": count, "episodes": episodes, "deterministic": deterministic, "seed": seed}
        return acting.evaluate(self.trainer, env, opponent=opponent, **how)

    def play(
        self,
        against: Any = "random",
        games: int | None = None,
        *,
        seed: int = 0,
        openings: int | None = None,
        simulations: int | None = None,
        deterministic: bool = True,
    ) -> Result:
        """Play games of two against another, half of them in each seat.

        against: another agent, "random", "person" (at the terminal), a function (key, observation, legal actions) ->
        action, or a `renshu.arena.players.Competitor` such as AlphaBeta. games: even, 2 or more; None: 100, or 2 with a
        person, who may leave earlier. openings: moves at the beginning that are drawn at random; None: 2, or none with
        a person. simulations: of agents that plan, in place of their own number. deterministic: greedy actions.
        Raises SpaceError where the agent has learned no game of two.
        """
        options = {"openings": openings, "simulations": simulations, "deterministic": deterministic}
        return players.play(self, against, games, seed=seed, **options)  # type: ignore[arg-type]

    def record(
        self,
        path: str | Path,
        *,
        episodes: int = 1,
        deterministic: bool = True,
        seed: int | None = None,
        env: Any = None,
    ) -> Path:
        """Play episodes and save them as a video, `.mp4` or `.gif`. Returns the path; a notebook shows the video.

        env: another environment than the agent's own; it must render to "rgb_array".
        """
        source = self.trainer.backend.source if env is None else acting.other_source(self.trainer, env)
        first = self.trainer.env_seed(2) if seed is None else seed
        recording.record(path := Shown(path), source, self.player(deterministic=deterministic), episodes, first)
        return path

    def pictures(self, folder: str | Path) -> list[Path]:
        """Draw what the algorithm has to show of what it has learned, to NAME.png in a folder. Returns the paths.

        NEAT: "network", the best one, and "species" over generations. MAPElites: "archive". Others have nothing to
        show. A training in a run folder leaves its pictures there. Raises RenshuError where they cannot be written.
        """
        with writing(Path(folder)):
            Path(folder).mkdir(parents=True, exist_ok=True)
        return save_pictures(self.trainer, Path(folder))

    def watch(
        self, episodes: int = 1, *, deterministic: bool = True, seed: int | None = None, terminal: bool = False
    ) -> list[tuple[float, int]]:
        """Play episodes in a window, or step by step in the terminal; returns (return, length) of each."""
        seed = self.trainer.env_seed(2) if seed is None else seed
        show = play.step_through if terminal else play.watch
        return show(self, self.trainer.backend.source, episodes, seed, deterministic)

    @answering(migration.SAVE)
    def save(self, path: str | Path, *, memory: bool = False) -> Path:
        """Save weights, optimiser, normaliser, hyperparameters and spaces in one file that holds no code.

        memory: with the replay memory, without which training goes on when it has filled again. The file is written
        whole or not at all. Raises CheckpointError where that is not possible.
        """
        save_trainer(self.trainer, Path(path), memory=memory)
        return Path(path)

    def checkpoint(self, keep: int = 3) -> Path:
        """Save the whole training state in the run folder, where the newest `keep` stay."""
        return save_checkpoint(self.trainer, keep)

    @classmethod
    def load(
        cls, path: str | Path, *, env: Any = None, algorithm: type[Algorithm] | None = None, **overrides: Any
    ) -> Agent:
        """Load an agent from a file that `agent.save` wrote.

        Nothing in the file is run, and nothing is imported because the file names it. Your own objects are passed
        again: `env=MyEnv`, `algorithm=MyAlgorithm` (unless registered), `network=MyNet` or any other hyperparameter; so
        is the `address` of a Ray cluster. An environment that is passed goes on where the one of training stood if it
        can, and from its start otherwise.
        Raises CheckpointError for a file that is missing, cut short, changed, not Renshu's, or from a newer version,
        and for an `env` or hyperparameters that its networks do not fit.
        """
        return cls.of_trainer(load_trainer(path, env, algorithm, overrides))

    @classmethod
    def resume(
        cls, run: Run | str | Path, *, env: Any = None, algorithm: type[Algorithm] | None = None, **overrides: Any
    ) -> Agent:
        """Load the newest checkpoint of a run folder; `agent.learn()` goes on from there in that folder.

        env: the environment, where the run does not say how to make it. overrides: as for `load`.
        Raises UnknownNameError without a run, CheckpointError without a readable checkpoint.
        """
        return cls.of_trainer(resume_trainer(run, env, algorithm, overrides))

    def close(self) -> None:
        """Close all environments. The agent can still act, and makes new ones when it needs them."""
        self.trainer.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


load = Agent.load
