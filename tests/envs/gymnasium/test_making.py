import gymnasium
import pytest

from renshu.envs.gymnasium.making import copied


class Generating(gymnasium.Env):
    """An environment that keeps a generator."""

    def __init__(self, numbers):
        self.numbers = numbers


def test_a_generator_that_has_ended_is_no_hindrance_to_a_copy():
    numbers = (n for n in range(2))
    assert list(numbers) == [0, 1]
    env = Generating(numbers)
    assert copied(env) is not env


def test_one_that_goes_on_is_not_shared():
    with pytest.raises(TypeError, match="generator"):
        copied(Generating(n for n in range(2)))
