"""Switches that are global to the process are put back by the last one out."""

import os
import subprocess
import sys
import threading
import warnings
from importlib.util import find_spec

import pytest
import SimpleITK as sitk

from nodule_diag.process import quiet_itk, quiet_pydicom


def shown():
    return sitk.ProcessObject.GetGlobalWarningDisplay()


def test_itk_is_silent_while_any_thread_is_inside():
    before = shown()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with quiet_itk():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    try:
        sitk.ProcessObject.SetGlobalWarningDisplay(True)
        with quiet_itk():
            thread.start()
            inside.wait(60)
        assert not shown(), "the other thread is still inside"
        leave.set()
        thread.join()
        assert shown()
    finally:
        leave.set()
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def test_only_pydicom_is_silenced_and_filters_are_put_back():
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet_pydicom(), quiet_pydicom():
            warnings.warn_explicit("a", UserWarning, "reader.py", 1, module="pydicom.filereader")
            warnings.warn_explicit("b", UserWarning, "host.py", 1, module="host")
        warnings.warn_explicit("c", UserWarning, "reader.py", 2, module="pydicom.filereader")
    assert [str(one.message) for one in heard] == ["b", "c"]
    assert warnings.filters == filters


@pytest.mark.skipif(not find_spec("requests"), reason="requests is not installed")
@pytest.mark.parametrize("first", ["nodule_diag.ct.dicom.headers", "nodule_diag.exchange.dicom.objects"])
def test_pydicom_is_imported_without_requests(first):
    code = f"import {first}, sys; assert 'pydicom' in sys.modules; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PYDICOM = """
try:
    import requests
except ImportError as error:
    assert error.name == "requests"
else:
    raise AssertionError("it is there")
import threading
def other():
    import requests
thread = threading.Thread(target=other)
thread.start()
thread.join()
"""


def test_another_thread_has_requests_meanwhile(tmp_path):
    (tmp_path / "pydicom.py").write_text(PYDICOM)
    (tmp_path / "requests.py").write_text("")
    code = """
import sys
before = list(sys.meta_path)
from nodule_diag.process import import_pydicom
import_pydicom()
assert "requests" in sys.modules
assert sys.meta_path == before
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
