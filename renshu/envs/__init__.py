"""Environments: what they look like, how they are made, watched and stepped, and how they fit an algorithm."""
