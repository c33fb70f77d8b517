"""A loop that remembers some of its states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax.errors import InputError
from flatjax.flow.scan import saved_indices, scan_steps

INCREMENTS = np.random.default_rng(0).normal(size=11).astype(np.float32)
STATES = np.concatenate([[1], 1 + np.cumsum(INCREMENTS)])


@pytest.mark.parametrize("steps", [0, 1, 2, 11, 1000])
@pytest.mark.parametrize("trajectory", [2, 3, 4, 7, 11, 12, 13, 51])
def test_kept_states_are_few_and_even_and_hold_both_ends(steps, trajectory):
    indices = saved_indices(steps, trajectory)
    assert len(indices) == min(trajectory, steps + 1)
    assert indices[0] == 0 and indices[-1] == steps
    gaps = np.diff(indices)
    assert steps == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_all_or_none_are_kept_by_a_truth_value():
    np.testing.assert_array_equal(saved_indices(3, True), range(4))
    assert len(saved_indices(3, False)) == 0
    for bad in (1, -1):
        with pytest.raises(InputError, match=f"trajectory is {bad}, expected True, False or"):
            saved_indices(3, bad)


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("trajectory", [True, 2, 5, 11, 12, 40])
def test_records_are_those_of_a_plain_loop(trajectory, remat):
    (final, count), records = scan_steps(
        lambda state, x: (state[0] + x, state[1] + 1), (jnp.ones(3), jnp.zeros((), int)),
        INCREMENTS, trajectory=trajectory, record=lambda state: (2 * state[0][:2], state[1]),
        remat=remat)
    indices = saved_indices(11, trajectory)
    np.testing.assert_allclose(final, np.full(3, STATES[-1]), rtol=1e-5)
    np.testing.assert_allclose(records[0], 2 * STATES[indices, None] * np.ones(2), rtol=1e-5)
    np.testing.assert_array_equal(records[1], indices)
    assert count == 11


def test_nothing_is_recorded_unasked():
    final, records = scan_steps(lambda state, x: state + x, jnp.ones(3), INCREMENTS)
    assert records is None
    np.testing.assert_allclose(final, np.full(3, STATES[-1]), rtol=1e-5)


def test_memory_depends_on_the_number_kept_and_not_on_the_steps():
    def bytes_needed(steps, trajectory):
        run = jax.jit(lambda start: scan_steps(lambda x, one: x + one, start, jnp.ones(steps),
                                         trajectory=trajectory)[1])
        memory = run.lower(jnp.zeros(10_000)).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    few = bytes_needed(50, 5)
    assert few < 20 * 40_000
    assert bytes_needed(2000, 5) < few + 40_000 < bytes_needed(2000, True) / 40
