"""Learners of a policy by its gradient: A2C, PPO."""
