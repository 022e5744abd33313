"""A store of nodules from CTs: ``nodule-diag train prepare``.

Only ``data`` imports from here.
"""
