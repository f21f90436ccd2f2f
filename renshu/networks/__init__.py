"""Networks: Flax Linen modules, built from the spaces of an environment; parameters are plain nested dicts."""
