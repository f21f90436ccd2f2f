"""Agents: what a user holds, the trainer inside, one call of learn, callbacks."""
