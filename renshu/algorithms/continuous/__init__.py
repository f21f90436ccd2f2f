"""Actor-critics that learn from replay, for continuous actions: DDPG, TD3, SAC, TQC, CrossQ."""
