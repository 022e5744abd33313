"""Switches that are global to the process are put back by the last one out."""

import threading
import warnings

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
