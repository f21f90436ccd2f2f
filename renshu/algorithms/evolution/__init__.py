"""Learners that compare whole policies: a population plays, and its returns say which way to go."""
