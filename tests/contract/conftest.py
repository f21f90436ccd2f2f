"""A table of how long each algorithm takes for each question, below all tests."""

import re
from collections import defaultdict

NAME = re.compile(r"test_algorithms\.py::test_(\w+)\[(?:host-|compiled-)?([^\]]+)\]")


def pytest_terminal_summary(terminalreporter):
    """Print what the questions recorded; from the workers of pytest-xdist, too."""
    table = defaultdict(lambda: defaultdict(float))
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        found = NAME.search(getattr(report, "nodeid", ""))
        if found and getattr(report, "when", "") == "teardown":
            table[found[2]][found[1]] += dict(report.user_properties).get("seconds", 0.0)
    if not table:
        return
    questions = list(dict.fromkeys(question for row in table.values() for question in row))
    rows = {name: [*(row[question] for question in questions), sum(row.values())] for name, row in table.items()}
    rows = dict(sorted(rows.items())) | {"all": [sum(column) for column in zip(*rows.values(), strict=True)]}
    terminalreporter.section("algorithms: seconds of a CPU for each question")
    for i, question in enumerate(questions):
        terminalreporter.write_line(f"{i:>3}: {question.replace('_', ' ')}")
    width = max(map(len, rows))
    terminalreporter.write_line(" " * width + "".join(f"{i:>6}" for i in [*range(len(questions)), "all"]))
    for name, numbers in rows.items():
        terminalreporter.write_line(f"{name:<{width}}" + "".join(f"{number:6.1f}" for number in numbers))
