"""The commands of ``nodule-diag export``: each parses, calls one function of a room below, and says what came of it."""
