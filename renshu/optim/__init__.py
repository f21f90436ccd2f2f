"""Gradient steps, minibatches, and the guard against bad numbers."""
