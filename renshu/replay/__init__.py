"""Experience kept for later: pure functions on pytrees that live in a learner's state."""
