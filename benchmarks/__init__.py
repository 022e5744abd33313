"""What nodule-diag costs in time and memory, with its peers in the same run: ``nodule-diag bench``.

One module for each part; each returns a :class:`benchmarks.results.Part`, which is written as JSON. ``bench report``
makes the page and its plots from these files alone. Not part of the wheel: it runs from a checkout.
"""
