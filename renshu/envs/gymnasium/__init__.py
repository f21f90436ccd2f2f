"""Bridges in both directions: Gymnasium's environments in Renshu's loops, and Renshu's environments in Gymnasium."""
