"""Showing an agent at work: videos, windows, the terminal."""
