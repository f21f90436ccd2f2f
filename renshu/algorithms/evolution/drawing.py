"""Pictures of networks that grow, of their species, and of archives of policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from renshu.networks.graph import NONE, Genome, Sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGIBLE = 32
"""Inputs up to which each of them is labelled with its number."""


def draw_network(axes: Axes, colours: Sequence[str], genome: Genome, sizes: Sizes) -> None:
    """Draw a network from its inputs at the left to its outputs at the right.

    Enabled connections have the first colour where they weigh more than 0 and the second where less, the broader the
    more; broken ones do not lead forward. Numbers are those of inputs and outputs.
    """
    genome = Genome(*(np.asarray(x) for x in genome))
    place = _places(genome, sizes)
    largest = max(float(np.abs(genome.weight[genome.enabled]).max(initial=0.0)), 1e-6)
    for i in np.flatnonzero(genome.enabled):
        start, end = place[int(genome.source[i])], place[int(genome.target[i])]
        forward, share = start[0] < end[0], abs(float(genome.weight[i])) / largest
        arrow = {
            "arrowstyle": "-|>",
            "color": colours[0] if genome.weight[i] > 0 else colours[1],
            "linewidth": 0.4 + 2.6 * share,
            "alpha": 0.25 + 0.75 * share,
            "linestyle": "-" if forward else "--",
            "connectionstyle": "arc3" if forward else "arc3,rad=0.35",
            "shrinkA": 7,
            "shrinkB": 7,
        }
        if start == end:
            axes.plot(start[0], start[1] + 0.035, marker="o", markersize=9, fillstyle="none", color=arrow["color"])
            continue
        axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
    inputs, outs = sizes.inputs, sizes.outputs
    for node, (x, y) in place.items():
        colour = colours[7] if node < inputs else colours[4] if node < inputs + outs else colours[2]
        axes.plot(x, y, marker="o", markersize=9, color=colour, zorder=3)
        if node < inputs and inputs <= LEGIBLE:
            axes.text(x - 0.03, y, str(node), ha="right", va="center", size=8)
        elif inputs <= node < inputs + outs:
            axes.text(x + 0.03, y, str(node - inputs), ha="left", va="center", size=8)
    hidden, connections = int((genome.hidden != NONE).sum()), int(genome.enabled.sum())
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.05, 1.05))
    axes.set_axis_off()
    axes.set_title(f"{hidden} hidden nodes, {connections} connections")


def _places(genome: Genome, sizes: Sizes) -> dict[int, tuple[float, float]]:
    """Place nodes by the longest way from the inputs, or where ways lead in circles, by the shortest."""
    pairs = [(int(genome.source[i]), int(genome.target[i])) for i in np.flatnonzero(genome.enabled)]
    first = sizes.inputs + sizes.outputs
    hidden = [int(node) for node in genome.hidden if node != NONE]
    depth = _longest(pairs, hidden) or _shortest(pairs, hidden, range(sizes.inputs))
    depth |= dict.fromkeys(range(sizes.inputs), 0)
    last = max(depth.values()) + 1
    depth |= dict.fromkeys(range(sizes.inputs, first), last)
    found = {}
    for level in range(last + 1):
        column = sorted(node for node, at in depth.items() if at == level)
        for i, node in enumerate(column):
            # Neighbouring columns are set off, so that lines do not run through nodes.
            y = 1 - (i + 0.5) / len(column) + (0.02 if level % 2 else -0.02)
            found[node] = (level / last, y)
    return found


def _longest(pairs: list[tuple[int, int]], hidden: list[int]) -> dict[int, int] | None:
    depth = dict.fromkeys(hidden, 1)
    for _ in range(len(hidden) + 1):
        after = {node: 1 + max((depth.get(a, 0) for a, b in pairs if b == node), default=0) for node in hidden}
        if after == depth:
            return depth
        depth = after
    return None


def _shortest(pairs: list[tuple[int, int]], hidden: list[int], inputs: range) -> dict[int, int]:
    depth, near, level = dict.fromkeys(hidden, 1), set(inputs), 0
    left = set(hidden)
    while near:
        level += 1
        near = {b for a, b in pairs if a in near and b in left}
        left -= near
        depth |= dict.fromkeys(near, level)
    return depth


def draw_species(axes: Axes, colours: Sequence[str], keys: np.ndarray, counts: np.ndarray, first: int) -> None:
    """Draw the sizes of species over generations, one above the other.

    keys, counts: `[G, S]` numbers of the species in S places, NONE for an empty one, and their sizes. first: number of
    the first of these generations.
    """
    found = sorted({int(key) for key in keys.reshape(-1)} - {NONE})
    sizes = [np.where(keys == key, counts, 0).sum(axis=1) for key in found]
    generations = first + np.arange(len(keys))
    if found:
        chosen = [colours[key % len(colours)] for key in found]
        axes.stackplot(generations, sizes, colors=chosen, edgecolor="white", linewidth=0.4, step="mid")
    axes.set_title(f"{len(found)} species")
    axes.set(xlabel="generation", ylabel="members")
    axes.margins(0)


def draw_archive(
    axes: Axes,
    colours: Sequence[str],
    fitness: np.ndarray,
    cells: Sequence[int],
    low: Sequence[float],
    high: Sequence[float],
) -> None:
    """Draw the elites' returns over two numbers of behaviour; over more or fewer, how often there are which returns.

    fitness: `[C]`, -inf in empty cells, which stay white. cells: along each number, C together. low, high: the bounds.
    """
    filled = np.isfinite(fitness)
    known = fitness[filled]
    if len(cells) == 2:
        edges = [np.linspace(least, most, count + 1) for least, most, count in zip(low, high, cells, strict=True)]
        values = np.ma.masked_where(~filled, fitness).reshape(*cells).T
        lowest, highest = (known.min(), known.max()) if len(known) else (0.0, 1.0)
        mesh = axes.pcolormesh(*edges, values, cmap="viridis", vmin=lowest, vmax=highest)
        figure = axes.get_figure()
        assert figure is not None
        figure.colorbar(mesh, ax=axes, label="return of the elite")
        axes.set(xlabel="behavior[0]", ylabel="behavior[1]")
    else:
        axes.hist(known, bins=min(len(known), 30) or 1, color=colours[0])
        axes.set(xlabel="return of the elite", ylabel="cells")
    axes.set_title(f"{len(known)} of {len(fitness)} cells filled")
