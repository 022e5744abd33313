"""F(m, r) against the correlation that it computes, and against the matrices that training uses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodule_diag_export.winograd.minimal_filtering import filtering
from nodule_diag_training.model import winograd

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 4)).filter(lambda sizes: sum(sizes) <= 9)


@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1))
def test_it_is_the_correlation(sizes, seed):
    outputs, taps = sizes
    rng = np.random.default_rng(seed)
    cells, kernel = rng.normal(size=outputs + taps - 1), rng.normal(size=taps)
    f = filtering(outputs, taps)
    assert len(f.inputs) == len(f.taps) == outputs + taps - 1  # the least products that there can be
    found = f.outputs @ ((f.taps @ kernel) * (f.inputs @ cells))
    np.testing.assert_allclose(found, np.correlate(cells, kernel, "valid"), atol=1e-9)


def test_training_has_the_same_matrices():
    f = filtering(4, 3)
    np.testing.assert_array_equal(f.inputs, winograd.INPUT_TRANSFORM)
    np.testing.assert_allclose(f.taps, winograd.KERNEL_TRANSFORM, rtol=1e-15)
    np.testing.assert_array_equal(f.outputs, winograd.OUTPUT_TRANSFORM)


@pytest.mark.parametrize("sizes", [(0, 3), (4, 0), (6, 4)])
def test_what_is_not_offered(sizes):
    with pytest.raises(ValueError, match="is not offered"):
        filtering(*sizes)
