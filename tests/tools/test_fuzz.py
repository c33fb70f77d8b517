"""The quick part of the fuzzing: a few hundred broken files for every reader (see fuzz.py)."""

import numpy as np
import pytest

from tools import fuzz


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", fuzz.READERS)
def test_broken_files_are_read_or_refused_in_one_line(name, tmp_path):
    fuzzer = fuzz.Fuzzer(name, tmp_path)
    failed = {number: problem for number in range(30 if name == "checkpoint" else 120)
              if (problem := fuzzer.attempt(number))}
    assert not failed, "\n".join(f"{number}: {problem}" for number, problem in failed.items())


@pytest.mark.parametrize("number", [4637, 15876])
def test_configs_with_null_or_endless_numbers_are_refused(number, tmp_path):
    assert fuzz.Fuzzer("config", tmp_path).attempt(number) is None


def test_mutations_follow_from_their_number_and_change_something():
    data = b'{"a": [1, 2, 3], "b": "text"}' * 3
    made = [[fuzz.mutate(data, np.random.default_rng(n), text=True) for n in range(50)]
            for _ in range(2)]
    assert made[0] == made[1] and sum(one != data for one in made[0]) > 40
