"""Evolution strategies and their kin by evosax (Lange 2022), over the weights of any network."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.custom_batching import sequential_vmap

from renshu.algorithms.evolution.population import State, Strategy
from renshu.algorithms.evolution.weights import VectorAlgorithm, VectorLearner
from renshu.algorithms.hyperparameters import ScheduleLike, choice, integer, number, parameters, schedule
from renshu.errors import HyperparameterError, did_you_mean
from renshu.ops.schedules import value_of
from renshu.types import Array, Counters, EnvSpec, Key, Metrics, PyTree

ADAM, PLAIN = ("adam", 0.02), ("sgd", 1.0)
STRATEGIES: dict[str, tuple[str, tuple[str, float] | None]] = {
    "open_es": ("Open_ES", ADAM),
    "pgpe": ("PGPE", ADAM),
    "asebo": ("ASEBO", ADAM),
    "snes": ("SNES", PLAIN),
    "xnes": ("xNES", PLAIN),
    "simple_es": ("SimpleES", PLAIN),
    "discovered_es": ("DiscoveredES", PLAIN),
    "cma_es": ("CMA_ES", None),
    "sep_cma_es": ("Sep_CMA_ES", None),
    "lm_ma_es": ("LM_MA_ES", None),
    "ma_es": ("MA_ES", None),
    "rm_es": ("Rm_ES", None),
    "cr_fm_nes": ("CR_FM_NES", None),
    "hill_climbing": ("HillClimbing", None),
    "simulated_annealing": ("SimulatedAnnealing", None),
    "gradientless_descent": ("GradientlessDescent", None),
    "simple_ga": ("SimpleGA", None),
    "mr15_ga": ("MR15_GA", None),
    "samr_ga": ("SAMR_GA", None),
    "gesmr_ga": ("GESMR_GA", None),
    "de": ("DifferentialEvolution", None),
    "pso": ("PSO", None),
}
"""Class in evosax of each strategy; optimiser and step size of those that move a mean along an estimated gradient."""
QUADRATIC = {"cma_es", "xnes", "ma_es"}
"""Strategies that keep a matrix of all pairs of weights."""
DECOMPOSING = {"cma_es", "xnes", "asebo"}
"""Strategies with eigenvalues, exponentials, QR or singular values of matrices. Batches of those, in two programs at
once, wait for each other's threads for ever on a CPU: rows of an experiment ask and tell one after the other."""
REMEMBERING = {"hill_climbing", "simulated_annealing", "gradientless_descent"}
"""Strategies with a mean that compare a generation with what they found before it, as those without one may."""
HOPELESS = -1e30
"""Fitness below that of all members, of all generations."""
MANY = 2_000
"""Weights from which a matrix of all their pairs is slow."""
SHAPING = (None, "centered_rank", "standardize", "normalize", "identity")


@dataclass(frozen=True, kw_only=True)
class ES(VectorAlgorithm):
    """Evolution strategies, genetic algorithms and other black-box search over the weights of a policy.

    Each generation `population_size` members play; their mean returns say where the next are drawn. What plays without
    exploration is the mean of their distribution, or the best of the latest where there is no mean. No gradient is
    taken: rewards may be rare, and actions need no probability. Needs evosax: pip install "renshu[evolution]".

    Source: evosax (Lange 2022); Salimans et al. 2017 (open_es), Hansen 2016 (cma_es), Sehnke et al. 2010 (pgpe),
    Wierstra et al. 2014 (snes, xnes), Ros and Hansen 2008 (sep_cma_es), Loshchilov et al. 2017 (lm_ma_es), Such et al.
    2017 (simple_ga), Storn and Price 1997 (de), Kennedy and Eberhart 1995 (pso).
    """

    strategy: str = choice("open_es", "way to search, by its name in evosax", tuple(STRATEGIES))
    population_size: int = integer(64, "members of a generation", least=2)
    sigma: float = number(
        0.1,
        "deviation of the members about their mean at the start; for asebo of their whole length, for "
        "gradientless_descent the largest radius",
        above=0,
    )
    learning_rate: ScheduleLike | None = schedule(
        None,
        "step size of strategies that move their mean along a gradient: None is 0.02 by Adam for open_es, pgpe and "
        "asebo, and 1 for snes, xnes, simple_es and discovered_es",
        least=0,
        optional=True,
        traceable=True,
    )
    weight_decay: float = number(0.0, "mean square of its weights times this is taken off a member's return", least=0)
    fitness_shaping: str | None = choice(
        None, "form in which open_es, pgpe and asebo see returns, and populations; None: the strategy's own", SHAPING
    )
    strategy_kwargs: Any = parameters("further parameters of the strategy in evosax, by name")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_rate is not None and STRATEGIES[self.strategy][1] is None:
            raise HyperparameterError(f"ES: {self.strategy} finds its own step size: leave learning_rate out")

    @property
    def members(self) -> int:
        """Members of the population."""
        return self.population_size

    def build(self, spec: EnvSpec) -> ESLearner:
        """Bind the strategy to an environment."""
        return ESLearner(self, spec)


class ESLearner(VectorLearner[ES]):
    """A strategy of evosax over a policy's weights."""

    def __init__(self, config: ES, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        name, size = config.strategy, self.policy.size
        if name == "lm_ma_es" and config.population_size > size:
            raise HyperparameterError(
                f"ES: lm_ma_es wants fewer members than weights: population_size={config.population_size}, and {size} "
                "weights"
            )
        if name in QUADRATIC and size > MANY:
            warnings.warn(
                f"{name} keeps a matrix of all pairs of {size:,} weights, which is slow: take sep_cma_es or lm_ma_es, "
                "or fewer weights (net_arch=[16])",
                stacklevel=6,
            )
        self._strategy = Evosax(config, size)

    @property
    def strategy(self) -> Strategy:
        """The strategy of evosax."""
        return self._strategy

    def learning_rate(self, counters: Counters) -> Array:
        """Return the step size, which may be a schedule; 0 where a strategy has none."""
        known = STRATEGIES[self.config.strategy][1]
        if known is None:
            return jnp.float32(0.0)
        chosen = self.config.learning_rate
        return value_of(known[1] if chosen is None else chosen, counters.progress_remaining)

    def failed(self, lowest: Array) -> Array:
        """Return the fitness of a member that failed: strategies that remember members of old must not keep it."""
        return super().failed(lowest) if self._strategy.forgets else jnp.full_like(lowest, HOPELESS)

    def named(self, state: State) -> dict[str, PyTree]:
        """Return the mean, where the strategy has one, and the best member of all generations, by its own seeds."""
        mean = {"mean": self.params_of(state.search.mean)} if hasattr(state.search, "mean") else {}
        return {"best": self.params_of(state.search.best_solution), **mean}

    def metrics(self, search: PyTree, solution: Array, rate: Array) -> Metrics:
        """Return the mean deviation of the members, where the strategy has one, and the step size."""
        found = super().metrics(search, solution, rate)
        if STRATEGIES[self.config.strategy][1] is not None:
            found["learning_rate"] = rate
        return {"sigma": jnp.mean(search.std), **found} if hasattr(search, "std") else found


class Evosax:
    """A strategy of evosax as pure functions; see `Strategy`. size: weights of a member, D."""

    def __init__(self, config: ES, size: int) -> None:
        if importlib.util.find_spec("evosax") is None:
            raise HyperparameterError('ES needs evosax, which is not installed: pip install "renshu[evolution]"')
        from evosax import algorithms

        self.config = config
        name, optimizer = STRATEGIES[config.strategy]
        kind, self.steps = getattr(algorithms, name), optimizer is not None
        arguments = inspect.signature(kind).parameters
        options = self._options(arguments)
        further = dict(config.strategy_kwargs or {})
        taken = arguments.keys() - {"population_size", "solution"}
        options |= {key: further.pop(key) for key in list(further) if key in taken}
        try:
            self.search = kind(population_size=config.population_size, solution=jnp.zeros(size), **options)
        except AssertionError as error:
            raise HyperparameterError(
                f"ES: population_size={config.population_size} is none for {config.strategy}: {error}"
            ) from None
        self.params = self._params(further)
        self.forgets = hasattr(self.search, "get_mean") and config.strategy not in REMEMBERING
        alone = sequential_vmap if config.strategy in DECOMPOSING else lambda function: function
        self._ask, self._tell = alone(self.search.ask), alone(self.search.tell)

    def _options(self, arguments: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
        """Return arguments of a strategy's class by the hyperparameters that stand for them."""
        config, options = self.config, {}
        optimizer = STRATEGIES[config.strategy][1]
        if optimizer is not None:
            made = optax.adam if optimizer[0] == "adam" else optax.sgd
            options["optimizer"] = optax.inject_hyperparams(made)(learning_rate=optimizer[1])
        if "std_schedule" in arguments:
            options["std_schedule"] = optax.constant_schedule(config.sigma)
        if config.fitness_shaping is not None:
            from evosax.core import fitness_shaping

            if arguments["fitness_shaping_fn"].default is fitness_shaping.weights_fitness_shaping_fn:
                raise HyperparameterError(
                    f"ES: {config.strategy} weighs its members by their rank itself: leave fitness_shaping out"
                )
            options["fitness_shaping_fn"] = getattr(fitness_shaping, f"{config.fitness_shaping}_fitness_shaping_fn")
        return options

    def _params(self, further: dict[str, Any]) -> Any:
        params = self.search.default_params
        known = [field.name for field in dataclasses.fields(params)]
        for name in further:
            if name not in known:
                raise HyperparameterError(
                    f"ES: {self.config.strategy} has no parameter {name!r}.{did_you_mean(name, known)}"
                )
        for name in ("std_init", "radius_max"):
            if name in known and name not in further:
                further[name] = self.config.sigma
        return jax.tree.map(jnp.asarray, params.replace(**further))

    def init(self, key: Key, start: Array) -> PyTree:
        """Begin at `start`; a population without a mean begins about it."""
        if hasattr(self.search, "get_mean"):
            state = self.search.init(key, start, self.params)
        else:
            count = self.config.population_size
            about = start + self.config.sigma * jax.random.normal(jax.random.fold_in(key, 1), (count, start.size))
            state = self.search.init(key, about, jnp.full(count, jnp.inf), self.params)
        # Of no generation yet, the best is where the search begins; evosax has NaN there.
        best = jnp.where(jnp.isnan(state.best_solution), start, state.best_solution)
        state = state.replace(best_solution=best)
        # Numbers of Python would become arrays of other types with the first generation.
        # Copied, because loops donate the state, and some of it would be the parameters themselves.
        return jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x), copy=True), state)

    def ask(self, key: Key, state: PyTree) -> tuple[Array, PyTree]:
        """Draw the members of a generation."""
        return self._ask(key, state, self.params)

    def tell(self, key: Key, members: Array, fitness: Array, state: PyTree, learning_rate: Array) -> PyTree:
        """Move the distribution; evosax looks for the lowest number, so it is told the negative."""
        if self.steps:
            given = {**state.opt_state.hyperparams, "learning_rate": learning_rate}
            state = state.replace(opt_state=state.opt_state._replace(hyperparams=given))
        if self.config.weight_decay:
            fitness = fitness - self.config.weight_decay * jnp.mean(members**2, axis=1)
        after, _ = self._tell(key, members, -fitness, state, self.params)
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, state)

    def solution(self, state: PyTree, members: Array, fitness: Array) -> Array:
        """Return the mean, or where there is none the best member of the latest generation.

        Not the best of all: it would be the one that met the easiest seeds.
        """
        return state.mean if hasattr(self.search, "get_mean") else members[fitness.argmax()]
