"""Replay: experience kept for later, as pure functions on pytrees that live in a learner's state."""
