"""Print what rliable computes for fixed scores, as the literals of tests/tracking/test_reliability.py.

Runs in a virtual environment that has rliable, which is no dependency of Renshu. arch 7.2 cannot be imported beside
pandas 3:

    python -m venv /tmp/rliable && /tmp/rliable/bin/pip install rliable==1.2.0 "pandas<3"
    /tmp/rliable/bin/python bench/run_rliable.py
"""

RESAMPLES, SEED = 2000, 7


def main() -> None:
    """Print scores [runs, tasks] of X and Y, thresholds, and for each statistic its value, low and high end."""
    import numpy as np
    from rliable import library, metrics

    made = np.random.RandomState(0)
    # Of one decimal, so that scores equal each other and thresholds.
    x = (made.normal(0.9, 0.5, (7, 6)) + np.linspace(-0.4, 0.6, 6)).round(1) + 0.0
    y = (made.normal(0.8, 0.5, (5, 6)) + np.linspace(-0.4, 0.6, 6)).round(1) + 0.0
    thresholds = [-0.5, 0.0, 0.3, 0.7, 1.0, 1.4, 2.0]

    def show(name, scores, statistic):
        # rliable 1.2.0 draws from the global state, whatever random_state it is given.
        np.random.seed(SEED)  # noqa: NPY002
        found = library.get_interval_estimates(
            {"": scores}, lambda *drawn: np.atleast_1d(statistic(*drawn)), reps=RESAMPLES
        )
        (value,), (ends,) = (list(part.values()) for part in found)
        print(f'    "{name}": [')
        for row in np.vstack([value, ends]).round(10).tolist():
            print(f"        {row},")
        print("    ],")

    print(f"X = {x.tolist()}\nY = {y.tolist()}\nTHRESHOLDS = {thresholds}\nRLIABLE = {{")
    for name in ("iqm", "mean", "median", "optimality_gap"):
        show(name, x, getattr(metrics, f"aggregate_{name}"))
    show("profile", x, lambda drawn: library.score_distributions(drawn, thresholds))
    show("improvement", [x, y], metrics.probability_of_improvement)
    print("}")


if __name__ == "__main__":
    main()
