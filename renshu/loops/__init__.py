"""Loops: they collect experience, and they call learn. None of them knows which algorithm it runs."""
