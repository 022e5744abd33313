"""A store of nodules from CTs: ``nodule-diag train prepare``."""
