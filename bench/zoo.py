"""Scores of replay and tabular learners after the steps of RL Zoo: presets, several seeds, 20 greedy episodes each.

    python -m bench.zoo [--case dqn:CartPole-v1] [--seeds 3] [--processes 2]

Rows are kept in docs/benchmarks/zoo.csv: a case that is not selected stays on the page as it was measured.
"""

from __future__ import annotations

from bench.scores import Case, main

CASES = {
    ("dqn", "CartPole-v1"): Case(3, 500.0),
    ("qrdqn", "CartPole-v1"): Case(3, 500.0),
    ("dqn", "MountainCar-v0"): Case(3, -110.0),
    ("dqn", "Acrobot-v1"): Case(3, -85.0),
    ("dqn", "LunarLander-v3"): Case(3, 150.0),
    ("sac", "Pendulum-v1"): Case(3, -165.0),
    ("td3", "Pendulum-v1"): Case(3, -165.0),
    ("ddpg", "Pendulum-v1"): Case(3, -165.0),
    ("sac", "MountainCarContinuous-v0"): Case(3, 90.0),
    ("sac", "LunarLanderContinuous-v3"): Case(1, 230.0),
    ("tqc", "BipedalWalker-v3"): Case(1, 290.0),
    ("qlearning", "renshu/Grid-v0"): Case(3, 0.65, episodes=1_000),
    ("qlearning", "FrozenLake-v1"): Case(3, 0.7, episodes=1_000),
    ("qlearning", "Taxi-v4"): Case(3, 7.0, episodes=300),
    ("qlearning", "CliffWalking-v1"): Case(3, -13.0),
    ("sarsa", "FrozenLake-v1"): Case(3, 0.7, episodes=1_000),
    ("expectedsarsa", "FrozenLake-v1"): Case(3, 0.7, episodes=1_000),
    ("dynaq", "FrozenLake-v1"): Case(3, 0.7, episodes=1_000),
    ("pqn", "CartPole-v1"): Case(5, 500.0),
    ("pqn", "Acrobot-v1"): Case(3, -85.0),
}
NOTE = (
    "Settings: the presets, which say where they differ from RL Zoo's. Goal: for the mean over the seeds. Episodes: 20 "
    "of each seed; 1,000 of FrozenLake and Grid, 300 of Taxi. Time: of the slowest seed, two at once on the machine, "
    f"with compilation. What names a last agent too: the best of {Case.evaluations} evaluations of 10 episodes on the "
    "way, evaluated again."
)

if __name__ == "__main__":
    main("zoo", "Learning from replay, and tables", CASES, NOTE, __doc__)
