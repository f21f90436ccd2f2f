"""Time one `learn()` of Renshu in this process and print JSON. Arguments: case, mode (cold or steady), who.

who: "renshu", or "host" for the host loop in a case of the compiled one.
"""

import json
import sys
import time

import renshu
from bench.cases import CASES


def main(case: str, mode: str, who: str = "renshu") -> None:
    """Time a learn. mode: "cold" is the first of the process; "steady" follows a short one, so all is compiled."""
    c = CASES[case]
    linear = {name: renshu.Linear(start) for name, start in c["linear"].items()}
    began = time.perf_counter()
    environment = c["environment"] if who == "host" else c.get("ours", c["environment"])
    agent = getattr(renshu, c.get("algorithm", case.upper()))(**c["settings"], **c["own"], **linear).on(
        environment, num_envs=c["num_envs"], seed=0
    )
    setup = time.perf_counter() - began
    if mode == "steady":
        agent.learn(c["warm_up"], progress=False)
        agent.trainer.clock.reset()
    began = time.perf_counter()
    agent.learn(c["steps"], progress=False)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "setup": setup, "shares": agent.trainer.clock.shares()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
