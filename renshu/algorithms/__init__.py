"""Algorithms by family. `base` is the contract, `registry` finds an algorithm by its name."""
