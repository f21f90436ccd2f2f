"""Time one `learn()` of a peer in this process and print JSON. Arguments: peer (sb3 or sbx), case, mode."""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from bench.cases import CASES


def main(peer: str, case: str, mode: str) -> None:
    """Time a learn. mode: "cold" is the first of the process; "steady" follows a short one, so all is compiled."""
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env

    library = stable_baselines3
    if peer == "sbx":
        import sbx

        library = sbx
    c = CASES[case]
    settings = dict(c["settings"])
    policy = {"policy_kwargs": {"net_arch": settings.pop("net_arch")}} if "net_arch" in settings else {}
    linear = {name: (lambda left, start=start: left * start) for name, start in c["linear"].items()}
    began = time.perf_counter()
    env = make_vec_env(c["environment"], c["num_envs"], seed=0)
    algorithm = getattr(library, c.get("algorithm", case.upper()))
    model = algorithm("MlpPolicy", env, **settings, **policy, **linear, seed=0, device="cpu")
    setup = time.perf_counter() - began
    if mode == "steady":
        model.learn(c["warm_up"])
    began = time.perf_counter()
    model.learn(c["steps"])
    print(json.dumps({"seconds": time.perf_counter() - began, "setup": setup}))


if __name__ == "__main__":
    main(*sys.argv[1:])
