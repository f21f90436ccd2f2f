"""Actors in this process, for the cluster loop: they answer in an order that is drawn, and fail where they are told."""

import random
from collections import deque

import jax
import numpy as np

from renshu.errors import EnvironmentFault
from renshu.loops.actors import Actor
from renshu.loops.cluster import Answer


class LocalActors:
    """Actors that collect when the learner waits for them. order: a random generator; None: as they were asked.

    fails: whether to fail, from a group and the number of its request. slow: a group that is the last to be asked.
    """

    def __init__(self, setup, order=None, fails=lambda group, number: None, slow=None):
        self.setup, self.order, self.fails, self.slow = setup, order, fails, slow
        self.actors, self.asked, self.queue = {}, {}, deque()
        self.published, self.versions = None, []

    def start(self, group):
        assert group not in self.actors
        self.actors[group], self.asked[group] = Actor(self.setup, group), 0

    def stop(self, group):
        assert all(request[0] != group for request in self.queue)
        self.actors.pop(group).close()

    def publish(self, version, actor_state):
        self.published = version, jax.tree.map(np.array, actor_state)
        self.versions.append(version)

    def request(self, group, iteration):
        self.queue.append((group, iteration, self.published, self.asked[group]))
        self.asked[group] += 1

    def answers(self, timeout=None):
        if not self.queue or (timeout == 0.0 and self.order is not None and self.order.random() < 0.5):
            return []
        several = [i for i, request in enumerate(self.queue) if request[0] != self.slow] or [0]
        first_of = {}
        for i in several:
            first_of.setdefault(self.queue[i][0], i)
        i = next(iter(first_of.values())) if self.order is None else self.order.choice(list(first_of.values()))
        group, iteration, published, number = self.queue[i]
        del self.queue[i]
        if (fault := self.fails(group, number)) is not None:
            self.actors[group].close()
            return [Answer(group, None, fault)]
        return [Answer(group, self.actors[group].collect(published, iteration))]

    def close(self):
        for actor in self.actors.values():
            actor.close()


def at_random(share, seed=0):
    """Failing requests: a share of all, but never five of a group in a row."""
    generator, row = random.Random(seed), {}

    def fails(group, number):
        row[group] = row.get(group, 0) + 1 if generator.random() < share and row.get(group, 0) < 4 else 0
        return EnvironmentFault(f"request {number} failed on purpose") if row[group] else None

    return fails
