"""The paper's experiments by name: every row of its tables, run in folds, judged, tabled and drawn."""
