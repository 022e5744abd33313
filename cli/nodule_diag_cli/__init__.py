"""The ``nodule-diag`` command line: parse, call the SDK, render."""
