"""The packaged model's recipe on one GPU for a few minutes: ``python -m benchmarks.gpu_day``.

For a bare machine that is lent by the minute: Python, torch and little else, no network, a small folder carried there,
a few files back. ``pack`` makes that folder, ``run`` trains there, ``unpack`` makes run folders of the files that come
back (docs/gpu-day.md). Everything follows the clock, is written as it comes, and can be stopped at any second.
"""
