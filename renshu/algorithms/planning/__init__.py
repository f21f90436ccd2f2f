"""Learners that plan: by search in the environment itself or in a learned model."""
