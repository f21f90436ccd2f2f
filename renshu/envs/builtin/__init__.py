"""Environments that come with the library, as pure functions."""
