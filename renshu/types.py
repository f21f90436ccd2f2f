"""Types that every part shares: descriptions of environments, actor outputs, rollouts, counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import gymnasium
    import jax

Array: TypeAlias = Any  # jax.Array inside compiled functions, np.ndarray on the host
PyTree: TypeAlias = Any
Key: TypeAlias = "jax.Array"
Metrics: TypeAlias = "dict[str, Array]"

MASK = "action_mask"
"""Key of the mask of n Discrete actions that are allowed now, [n]: in `info`, or beside OBSERVATION."""
OBSERVATION = "observation"
"""Key of the observation itself where a mask travels with it: {MASK: [n], OBSERVATION: ...}."""

LIFE_LOST = "life_lost"
"""Key of `info` by which an environment says that only a life is over: an episode for the learner, of a longer game."""


@dataclass(frozen=True)
class EnvSpec:
    """Description of an environment, as a learner needs it to be built.

    observation_space, action_space: of one environment, as Gymnasium describes them.
    num_envs: how many environments step together, N.
    id: the name under which Gymnasium can make it, or None.
    kwargs: arguments it is made with, besides the id. unsaved: names of those that its file could not hold.
    max_episode_steps: the time limit in steps, or None.
    reward_threshold: the mean return at which the environment counts as solved, or None.
    frame_stack: number of latest observations that the learner sees at once. `observation_space` is of one of them.
    masks: observations are {MASK: [n], OBSERVATION: ...}, and the learner leaves out the actions that are not allowed.
    rollout_envs: environments of a rollout, where those are of some at a time, which `env_id` names, and may not
    follow on each other; None: of all, in order, one after the other.
    players: 1, or the number of those in a game, where rewards are [P] and a learner moves for all of them.
    model: the DeviceEnv whose states `TimeStep.env_state` has, for learners that plan in it; no file holds it.
    """

    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    num_envs: int
    id: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    unsaved: tuple[str, ...] = ()
    max_episode_steps: int | None = None
    reward_threshold: float | None = None
    frame_stack: int = 1
    masks: bool = False
    rollout_envs: int | None = None
    players: int = 1
    model: Any = field(default=None, compare=False, repr=False)

    @property
    def network_space(self) -> gymnasium.Space:
        """Space of the part of an observation that a network sees: all but the mask."""
        space: Any = self.observation_space
        return space.spaces[OBSERVATION] if self.masks else space


@dataclass(frozen=True)
class Accepts:
    """Kinds of observation and action that an algorithm takes; `envs/adapt.py` fits the others or refuses them.

    Kinds are "box", "discrete", "multi_discrete", "multi_binary"; observations may also be "image" (uint8, three axes)
    and "nested" (Dict and Tuple, to any depth, of the others). frame_stack: it can see several
    observations at once.
    masks: it can leave out Discrete actions that are not allowed; see `EnvSpec.masks`.
    squashed: its Box actions stay within [-1, 1], so that those without bounds have to be scaled too.
    players: it moves for all players of a game; for others all seats but one are taken by opponents.
    model: it plans in the environment itself, which has to be pure functions.
    """

    observations: frozenset[str]
    actions: frozenset[str]
    frame_stack: bool = False
    masks: bool = False
    squashed: bool = False
    players: bool = False
    model: bool = False


class TimeStep(NamedTuple):
    """N environments as an actor sees them. An optional field is () for all that do not need it."""

    obs: PyTree  # [N, ...]
    first: Array  # [N] bool  obs is the first of an episode
    env_id: Array = ()  # [N] int32  which of all environments these are; (): all of them, in order
    env_state: PyTree = ()  # [N, ...]  the bare environments' own states, for learners that plan in them
    to_play: Array = ()  # [N] int32  whose turn it is, in games


class ActorOutput(NamedTuple):
    """Output of an actor for N environments."""

    action: PyTree  # [N, ...]
    carry: PyTree = ()  # [N, ...]  recurrent state
    extras: PyTree = ()  # [N, ...]  recorded in rollouts: what learning cannot compute again


class Rollout(NamedTuple):
    """T steps of experience in N environments, time-major. An optional field is () for all that do not need it.

    Environments reset by Gymnasium's NEXT_STEP rule: the observation that ends an episode is a row of its own, and the
    step after it only resets (its action is ignored, its reward is 0). So `valid` says which steps were real, and a
    truncated episode bootstraps from `obs[t + 1]`, which is its true last observation.
    """

    obs: PyTree  # [T+1, N, ...]  the last row is where the next rollout starts
    first: Array  # [T+1, N] bool  obs is the first of an episode
    action: PyTree  # [T, N, ...]    as the algorithm chose it (before it is fitted to the environment)
    reward: Array  # [T, N] float32 raw, as the environment gave it; [T, N, P] where a learner moves for P players
    terminated: Array  # [T, N] bool    the episode ended for good: no value beyond
    carry: PyTree = ()  # [N, ...]       the actor's memory at obs[0] (recurrent state)
    extras: PyTree = ()  # [T, N, ...]    what act knows and learn cannot compute again
    env_id: Array = ()  # [N] int32      which of all environments these are; (): all of them, in order
    continues: Array = ()  # [N] bool       obs[0] follows on that environment's previous rollout; (): it does
    version: Array = ()  # [N] int32      number of the published actor state that acted; (): the newest
    to_play: Array = ()  # [T+1, N] int32 whose turn it is, in games

    @property
    def valid(self) -> Array:
        """[T, N] bool: the step was real, not the reset between two episodes."""
        return ~self.first[1:]


KEEP = frozenset({"obs", "action", "reward", "extras"})
"""Fields of a rollout that a learner can do without; the others always stay."""


@dataclass(frozen=True)
class Needs:
    """Needs of a learner, from whichever loop runs it.

    steps: T, steps of each environment in a rollout. max_lag: how many published actor states old experience may be, 0
    on-policy, None any; a loop refuses older rollouts. fresh: a rollout is whole episodes, one for each environment.
    common_seeds: in fresh rollouts, so many neighbouring environments begin and go on by the same randomness (common
    random numbers). finite_rewards: False where it copes with NaN and infinity in rewards, which a loop refuses
    otherwise.
    env_state: `act` gets the environments' own states. keep: fields of the rollout that are wanted; others are ().
    """

    steps: int
    max_lag: int | None = 0
    fresh: bool = False
    common_seeds: int = 1
    finite_rewards: bool = True
    env_state: bool = False
    keep: frozenset[str] = KEEP


class Counters(NamedTuple):
    """Progress of a learner. Every schedule is computed from it, so every loop sees the same one."""

    steps: Array  # [] int32  valid environment steps learned from
    updates: Array  # [] int32  gradient steps taken
    episodes: Array  # [] int32  episodes that ended
    owed: Array  # [] float32  gradient steps that the steps so far entitle to and that were not taken
    start: Array  # [] int32  steps at which the current call of learn began
    target: Array  # [] int32  steps at which it ends

    @classmethod
    def zeros(cls) -> Counters:
        """Return counters before anything was learned."""
        import jax.numpy as jnp

        zeros = cls(*(jnp.int32(0) for _ in cls._fields))
        return zeros._replace(owed=jnp.float32(0.0))

    def after(self, rollout: Rollout, updates: Array | int = 0, episodes: Array | int | None = None) -> Counters:
        """Return counters after the steps of a rollout, the episodes that ended in it, and more gradient steps.

        episodes: None counts the resets, of which a fresh rollout has none to show.
        """
        # A step of one environment after the first of an episode was a reset: an episode ended before it.
        ended = rollout.first[1:].sum(dtype="int32") if episodes is None else episodes
        return self._replace(
            steps=self.steps + rollout.valid.sum(dtype="int32"),
            episodes=self.episodes + ended,
            updates=self.updates + updates,
        )

    @property
    def progress_remaining(self) -> Array:
        """[] float32: 1 at the start of learn, 0 at its end (Stable-Baselines3's `progress_remaining`)."""
        done = (self.steps - self.start) / (self.target - self.start).clip(1)
        return (1.0 - done).clip(0.0, 1.0)
