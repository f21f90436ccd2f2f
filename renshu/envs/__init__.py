"""Environments: their descriptions, how they are made, checked and stepped, and how they are fitted to an algorithm."""
