"""Files: arrays in a safe format, with descriptions of the agents that they belong to."""
