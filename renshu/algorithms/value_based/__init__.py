"""Learners of action values with a network: DQN and its variants, PQN."""
