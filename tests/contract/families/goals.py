"""Deep Q-learning with hindsight (Andrychowicz et al. 2017), and the flipping of bits on which it is shown."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.algorithms.hyperparameters import integer
from renshu.algorithms.replay_learner import examples
from renshu.algorithms.value_based.dqn import DQN, DQNLearner
from renshu.envs.device import DeviceEnv, Step
from renshu.replay.relabelling import GoalBuffer


def goal_reward(achieved, desired):
    """Rewards `[...]` of achieved goals when others are desired, both `[..., G]`: 0 if they are the same, else -1."""
    return (achieved == desired).all(axis=-1) - 1.0


@dataclass(frozen=True, kw_only=True)
class Hindsight(DQN):
    """DQN on transitions of which most pursue a goal that their episode reached later."""

    n_sampled_goal: int = integer(4, "relabelled transitions for each that keeps its goal", least=0)

    def build(self, spec):
        return HindsightLearner(self, spec)


class HindsightLearner(DQNLearner):
    def make_replay(self):
        config, spec = self.config, self.spec
        return GoalBuffer(
            config.buffer_size,
            *examples(spec),
            goal_reward=goal_reward,
            n_sampled_goal=config.n_sampled_goal,
            num_envs=spec.num_envs,
            rollout_length=config.train_freq,
            n_steps=config.n_steps,
            frame_stack=spec.frame_stack,
            alpha=config.prioritized_replay_alpha if config.prioritized else None,
        )


class Bits(NamedTuple):
    """Bits, 0 or 1, and those that they shall become."""

    now: jax.Array  # [n] float32
    goal: jax.Array  # [n] float32


@dataclass(frozen=True)
class BitFlip(DeviceEnv):
    """Flip one of n bits at a time until all are as desired, in n steps at most. The reward is -1 until then."""

    n: int = 8

    @property
    def max_episode_steps(self):
        return self.n

    @property
    def action_space(self):
        return spaces.Discrete(self.n)

    @property
    def observation_space(self):
        bits = spaces.Box(0, 1, (self.n,), np.float32)
        return spaces.Dict({"observation": bits, "achieved_goal": bits, "desired_goal": bits})

    def see(self, state):
        return {"observation": state.now, "achieved_goal": state.now, "desired_goal": state.goal}

    def reset(self, key):
        state = Bits(*jax.random.bernoulli(key, shape=(2, self.n)).astype(jnp.float32))
        return state, self.see(state)

    def step(self, state, action, key):
        state = state._replace(now=state.now.at[action].set(1 - state.now[action]))
        reward = goal_reward(state.now, state.goal)
        return Step(state, self.see(state), reward, reward == 0, info={"is_success": reward == 0})
