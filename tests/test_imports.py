import importlib.metadata
import subprocess
import sys

import pytest

import renshu

HEAVY = [
    "jax",
    "flax",
    "optax",
    "matplotlib",
    "pygame",
    "imageio",
    "tensorboardX",
    "typer",
    "rich",
]


def loaded(code: str) -> set[str]:
    """The top-level modules that a fresh Python has after `code`."""
    script = f"import sys\n{code}\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_import_renshu_is_cheap():
    """Gymnasium is there (0.15 s), so that our environments are known to it; nothing else is."""
    assert not loaded("import renshu") & set(HEAVY)
    assert not loaded("import renshu; renshu.__version__") & set(HEAVY)
    assert not loaded("import renshu.errors, renshu.types") & set(HEAVY)


def test_our_environments_are_known_to_gymnasium():
    code = "import renshu, gymnasium; print(gymnasium.make('renshu/Grid-v0').spec.max_episode_steps); print(50)"
    assert "jax" in loaded(code)


def test_dir_lists_what_is_there():
    import renshu

    assert {"PPO", "A2C", "load", "preset", "Linear", "callbacks", "__version__"} <= set(dir(renshu))
    assert "ActorCriticAlgorithm" not in dir(renshu)


def test_an_agent_needs_no_pictures_and_no_command_line():
    found = loaded("import renshu.agent.agent; from renshu import PPO, load, preset")
    assert {"jax", "gymnasium"} <= found
    assert not found & {"matplotlib", "tensorboardX", "imageio", "imageio_ffmpeg", "pygame", "typer", "PIL"}


@pytest.mark.parametrize(
    "line",
    [["--help"], ["train", "--help"], ["evaluate", "-h"], ["watch", "--help"], ["plot", "--help"], ["list", "--help"]],
)
def test_help_is_cheap(line):
    code = f"""
import runpy
sys.argv = ["renshu", *{line}]
try:
    from renshu.cli import main
    main()
except SystemExit as exit:
    assert exit.code == 0"""
    assert not loaded(code) & (set(HEAVY) - {"typer", "rich"})


def test_public_names():
    names = ["PPO", "A2C", "Agent", "Algorithm", "Learner", "Evaluation", "Linear", "Cosine", "Piecewise"]
    for name in names:
        assert getattr(renshu, name).__name__ == name
    assert callable(renshu.load)
    assert callable(renshu.preset)
    assert renshu.callbacks.Evaluate.__name__ == "Evaluate"
    assert renshu.__version__ == importlib.metadata.version("renshu")


@pytest.mark.parametrize("name", ["DQN9", "_hidden", "__path2__"])
def test_unknown_names(name):
    with pytest.raises(AttributeError, match=name):
        getattr(renshu, name)
    assert not hasattr(renshu, name)
