"""The error tree: codes, exit codes and builtins that callers rely on."""

import inspect
import re

import pytest

from nodule_diag import errors
from nodule_diag.errors import CTError, MissingExtraError, NoduleDiagError, OutputError

TREE = {
    "NoduleDiagError": (Exception, 1),
    "UsageError": (ValueError, 2),
    "CTError": (ValueError, 3),
    "CoordinateError": (ValueError, 3),
    "BundleError": (ValueError, 4),
    "CaseBaseError": (ValueError, 4),
    "BackendError": (RuntimeError, 5),
    "MissingExtraError": (ImportError, 5),
    "OutputError": (OSError, 1),
    "PacsError": (ConnectionError, 6),
}


def test_the_tree_is_the_documented_one():
    classes = {
        name: cls for name, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__
    }
    assert classes.keys() == TREE.keys()
    for name, (builtin, exit_code) in TREE.items():
        assert issubclass(classes[name], NoduleDiagError)
        assert issubclass(classes[name], builtin)
        assert classes[name].exit_code == exit_code
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", classes[name].code)
        assert name in (errors.__doc__ or "")


def test_an_instance_can_be_more_precise():
    error = CTError("scan.nii is 4-D", code="ct-not-3d", hint="give one volume")
    assert error.to_dict() == {"code": "ct-not-3d", "message": "scan.nii is 4-D", "hint": "give one volume"}
    assert CTError.code == "ct-rejected"


@pytest.mark.parametrize("error", [MissingExtraError("onnxruntime", "cpu"), OutputError("disk full", hint="free some")])
def test_the_message_is_all_that_is_printed(error):
    assert str(error) == error.message


def test_a_missing_extra_prints_the_command():
    error = MissingExtraError("onnxruntime", "cpu")
    assert "pip install 'nodule-diag[cpu]'" in str(error)
    assert (error.package, error.extra) == ("onnxruntime", "cpu")
