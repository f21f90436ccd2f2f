"""Collection of rollouts in Gymnasium environments, which step in Python while acting is a compiled program."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import jax
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from renshu.envs.checks import CheckedEnv
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.errors import NotFiniteError
from renshu.loops.programs import Programs
from renshu.loops.report import Clock, info_numbers
from renshu.ops.spaces import flatten, leaf_spaces, storage_dtype, unflatten
from renshu.types import Array, Key, PyTree, Rollout


class Collected(NamedTuple):
    """A rollout, and what the loop reports of it even where the learner keeps none."""

    rollout: Rollout
    reward: Array  # [T, N]
    ended: Array  # [T, N] bool  an episode's last step
    infos: dict[tuple[int, int], dict[str, float]]  # numbers of such steps' `info`, by (t, n)

    @property
    def of_episodes(self) -> tuple[Array, Array, Array, dict[tuple[int, int], dict[str, float]]]:
        """The arguments of `Episodes.add`."""
        return self.reward, self.rollout.valid, self.ended, self.infos


class Collector:
    """Gymnasium environments with the actor's memory in them.

    decode_action: from the learner's actions to the environment's. seed: of the environments. env_id: [N] int32, which
    of all environments these are, where there are others; () otherwise.
    """

    def __init__(
        self,
        programs: Programs,
        envs: HostEnvs,
        decode_action: Callable[[Any], Any],
        *,
        seed: int,
        env_id: Array = (),
    ) -> None:
        self.programs, self.envs, self.decode_action, self.env_id = programs, envs, decode_action, env_id
        self.clock, self.seed = Clock(), seed
        n, space = envs.num_envs, envs.single_observation_space
        base: Any = envs.vector_env.unwrapped
        if hasattr(base, "common_seeds"):
            base.common_seeds = programs.learner.needs.common_seeds
        self.space = space
        self.single = not isinstance(space, spaces.Dict | spaces.Tuple)
        self.storage = [(leaf.shape or (), storage_dtype(leaf.dtype)) for leaf in leaf_spaces(space)]
        self.carry = programs.learner.initial_carry(n)
        self.sees_more = programs.learner.needs.env_state or not isinstance(env_id, tuple)
        self.first = np.ones(n, np.bool_)
        self.ended = np.zeros(n, np.bool_)
        self._began = self._iteration = 0
        guards = getattr(base, "envs", ())
        self._guards: list[CheckedEnv] = [*guards] if all(isinstance(one, CheckedEnv) for one in guards) else []
        self.obs = flatten(space, envs.reset(seed))

    def collect(self, actor_state: PyTree, keys: Key, began: int = 0, iteration: int = 0) -> Collected:
        """Step the environments `needs.steps` times. keys: [T] or more. began: steps of training so far, for messages.

        iteration: number of the rollout, by which episodes that neighbours share are drawn.

        Buffers are new each time: jax may read them in place while the next rollout is being collected.
        Raises NotFiniteError for NaN or infinity in observations, rewards or actions, EnvironmentFault from the
        environments.
        """
        self._began, self._iteration = began, iteration
        needs, n = self.programs.learner.needs, self.envs.num_envs
        T = needs.steps
        if needs.fresh:
            self.begin_anew()
        packed = self.programs.pack(actor_state, self.env_id)
        kept = "obs" in needs.keep  # otherwise there is room for two rows, in turn
        rows = [np.empty((T + 1 if kept else 2, n, *shape), dtype) for shape, dtype in self.storage]
        marks = np.empty((T + 2, n), np.bool_)  # marks[t] is first[t], and says whether step t - 2 ended an episode
        lives = None  # [T, N] bool: what ended there was a life, of an episode that goes on
        reward, terminated = np.empty((T, n), np.float32), np.empty((T, n), np.bool_)
        actions, extras, infos = [], [], {}
        marks[0], marks[1] = self.first, self.ended
        start = self.carry
        for row, leaf in zip(rows, self.obs, strict=True):
            row[0] = leaf
        act, step, decode, clock = self.programs.act_packed, self.envs.step, self.decode_action, self.clock
        single, space = self.single, self.space
        obs_rows = rows[0]
        for t in range(T):
            tick = perf_counter()
            here, there = (t, t + 1) if kept else (t % 2, (t + 1) % 2)
            obs = obs_rows[here] if single else unflatten(space, [row[here] for row in rows])
            more = self._more_to_see() if self.sees_more else ()
            chosen = act(packed, self.carry, obs, marks[t], keys, t, *more)
            action = np.asarray(chosen.action)
            self.carry = chosen.carry
            tock = perf_counter()
            clock.act += tock - tick
            if action.dtype.kind == "f" and not np.isfinite(action).all():
                self._check_observations(rows, t + 1)
                self._bad(action, "the action", t, "the parameters may have gone NaN in an earlier update")
            observed, reward[t], terminated[t], truncated = step(decode(action))
            clock.env += perf_counter() - tock
            np.logical_or(terminated[t], truncated, out=marks[t + 2])
            if self.envs.infos and marks[t + 2].any():
                infos |= {(t, n): info_numbers(self.envs.infos, n) for n in np.flatnonzero(marks[t + 2]).tolist()}
                if (lost := self.envs.life_lost) is not None:
                    lives = np.zeros((T, n), np.bool_) if lives is None else lives
                    lives[t] = lost
            if single:
                obs_rows[there] = observed
            else:
                for row, leaf in zip(rows, flatten(space, observed), strict=True):
                    row[there] = leaf
            actions.append(action)
            extras.append(chosen.extras)
            if needs.fresh and self._over(t, rows, marks, reward, terminated):
                break
        self.obs = [row[T if kept else T % 2] for row in rows]
        self.first, self.ended = marks[T].copy(), marks[T + 1].copy()
        self._check_observations(rows, T + 1)
        if needs.finite_rewards and not np.isfinite(reward).all():
            self._bad(reward, "the reward", None)
        ended = marks[2:] & ~marks[1:-1]  # what is over stays marked while it waits for others
        ended = ended if lives is None else ended & ~lives
        obs = unflatten(space, rows)
        rollout = self._rollout(obs, marks[: T + 1], actions, reward, terminated, start, extras)
        return Collected(rollout, reward, ended, infos)

    def _rollout(
        self,
        obs: PyTree,
        first: Array,
        actions: list[Array],
        reward: Array,
        terminated: Array,
        carry: PyTree,
        extras: list[PyTree],
    ) -> Rollout:
        """Put together what the learner needs. actions, extras: shorter than T where all episodes were over early."""
        keep, rest = self.programs.learner.needs.keep, len(reward) - len(actions)
        if rest:
            actions = actions + [np.zeros_like(actions[0])] * rest
            extras = extras + [jax.tree.map(np.zeros_like, extras[0])] * rest
        recorded = jax.tree.map(lambda *x: np.stack(x), *extras)
        floats = [x for x in jax.tree.leaves(recorded) if np.issubdtype(x.dtype, np.floating)]
        if not all(np.isfinite(x).all() for x in floats):
            raise NotFiniteError(
                f"act gave extras that are NaN or infinite in the rollout that began at step {self._began} of "
                "training. Nothing was learned from it; the parameters may have gone NaN in an earlier update"
            )
        return Rollout(
            obs=obs if "obs" in keep else (),
            first=first,
            action=np.stack(actions) if "action" in keep else (),
            reward=reward if "reward" in keep else (),
            terminated=terminated,
            carry=carry,
            extras=recorded if "extras" in keep else (),
            env_id=self.env_id,
        )

    def _more_to_see(self) -> tuple[Array, PyTree]:
        """Return the optional fields of a TimeStep."""
        return self.env_id, self.envs.state if self.programs.learner.needs.env_state else ()

    def begin_anew(self) -> None:
        """Begin an episode in each environment; those that ran are not learned from any further."""
        n = self.envs.num_envs
        for guard in self._guards:
            guard.rest(False)
        obs = self.envs.reset(self._seeds())
        self.obs, self.carry = flatten(self.space, obs), self.programs.learner.initial_carry(n)
        self.first, self.ended = np.ones(n, np.bool_), np.zeros(n, np.bool_)

    def _seeds(self) -> list[int] | None:
        """Return seeds [N] for episodes that neighbours play alike; None where not, or where one seed serves all."""
        common = self.programs.learner.needs.common_seeds
        if common == 1 or not isinstance(self.envs.vector_env.unwrapped, SyncVectorEnv | AsyncVectorEnv):
            return None
        ids = np.arange(self.envs.num_envs) if isinstance(self.env_id, tuple) else np.asarray(self.env_id)
        root = [self.seed, self._iteration]
        return [int(np.random.SeedSequence([*root, int(i)]).generate_state(1)[0]) for i in ids // common]

    def _over(self, t: int, rows: list[Array], marks: Array, reward: Array, terminated: Array) -> bool:
        """Leave environments whose episode ended before step t as they were; fill the rest where all are over."""
        over = marks[t + 1]
        reward[t, over], terminated[t, over] = 0.0, False
        kept = "obs" in self.programs.learner.needs.keep
        here, there = (t, t + 1) if kept else (t % 2, (t + 1) % 2)
        for row in rows:
            row[there, over] = row[here, over]
        for n in np.flatnonzero(marks[t + 2] & ~over) if self._guards else ():
            self._guards[n].rest()
        marks[t + 2] |= over
        if not marks[t + 2].all():
            return False
        reward[t + 1 :], terminated[t + 1 :], marks[t + 3 :] = 0.0, False, True
        for row in rows if kept else ():
            row[t + 2 :] = row[t + 1]
        return True

    def _check_observations(self, rows: list[Array], count: int) -> None:
        for row in rows:
            if row.dtype.kind == "f" and not np.isfinite(row[:count]).all():
                self._bad(row[:count], "the observation", None)

    def _bad(
        self, values: Array, what: str, t: int | None, hint: str = "fix the environment, or clip what it returns"
    ) -> None:
        """Raise NotFiniteError naming the first bad environment and step. values: [T, N, ...], or [N, ...] with t."""
        where = np.argwhere(~np.isfinite(values))[0]
        t, n = (int(where[0]), int(where[1])) if t is None else (t, int(where[0]))
        value = values[tuple(where)]
        raise NotFiniteError(
            f"{what} of environment {n} is {value} at step {t} of the rollout that began at step {self._began} "
            f"of training (environment: {self.envs.name}). Nothing was learned from it; {hint}"
        )
