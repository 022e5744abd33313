"""Slope and intercept that differ from slice to slice: obeyed where HU agree, refused where they cannot be right."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ct_files as make
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError

HU = make.chest_hu()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_slice_may_have_its_own(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    items = make.dicom_slices(HU)
    for item, plane in zip(items, HU, strict=True):
        slope, intercept = rng.choice([0.25, 0.5, 1, 1.5]), rng.integers(-2000, 0)
        item.RescaleSlope, item.RescaleIntercept = f"{slope}", f"{intercept}"
        item.PixelData = np.rint((plane - intercept) / slope).astype("<i2").tobytes()
    ct = read_ct(make.save_series(tmp_path_factory.mktemp("series"), items))
    assert np.abs(ct.hu - HU).max() <= 0.75


@pytest.mark.parametrize("where", [0, 5, 11])
@pytest.mark.parametrize(("slope", "intercept"), [(2, -1024), (0.5, -1024), (1, 0), (1, -1100), (1.05, -1024)])
def test_the_odd_one_is_named(tmp_path, where, slope, intercept):
    items = make.dicom_slices(HU)
    items[where].RescaleSlope, items[where].RescaleIntercept = slope, intercept
    with pytest.raises(CTError, match=rf"{where:03d}\.dcm has slope {slope:g}, intercept {intercept} and") as caught:
        read_ct(make.save_series(tmp_path / "series", items))
    assert caught.value.code == "ct-inconsistent-slices"
