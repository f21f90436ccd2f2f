"""Scores of presets in worlds of physics, and of a console game: Box2D, MuJoCo, stable-retro.

    python -m bench.physics [--case ppo:Hopper-v5] [--seeds 3] [--processes 2]

It needs the extras box2d, mujoco and retro. Rows are kept in docs/benchmarks/physics.csv: a case that is not selected
stays on the page as it was measured.
"""

from __future__ import annotations

from bench.scores import Case, main

CASES = {
    ("ppo", "BipedalWalker-v3"): Case(1, 288.0, steps=4_900_000),
    ("sac", "HalfCheetah-v5"): Case(1, 3000.0, steps=300_000),
    ("ppo", "Hopper-v5"): Case(3, 2400.0),
    ("ppo", "Reacher-v5"): Case(3, -6.0),
    ("ppo", "retro/Airstriker-Genesis"): Case(1, 0.0, steps=100_000, above_random=True, evaluations=0, sampled=True),
}
NOTE = (
    "Settings: the presets, which say where they differ from RL Zoo's; observations are normalised where PPO learns "
    "from numbers. Goal: for the mean over the seeds. 20 episodes of each seed, greedy unless it says "
    "sampled. Time: of the slowest seed, with "
    "compilation and one to four other trainings on the machine. What names a last agent too: the best of some "
    "evaluations of 10 episodes on the way, evaluated again."
)

if __name__ == "__main__":
    main("physics", "Worlds of physics, and a console game", CASES, NOTE, __doc__)
