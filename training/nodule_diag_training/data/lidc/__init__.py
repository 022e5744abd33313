"""LIDC-IDRI: its tables, its database of outlines, the paper's cohort.

Only ``data`` imports from here.
"""
