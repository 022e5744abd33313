"""Everything that needs a GPU, in one command of under eight minutes: ``python -m benchmarks.gpu_check --out FILE``.

Each step runs in a process of its own with a limit of its own, so that one that crashes, hangs or lacks a package costs
nothing but itself. The file is written after every step. The parent needs nothing but Python, for a bare machine has
nothing else: what the steps need is installed, without a network, from a folder of wheels (``--wheels``).

**It has not yet run on a GPU.** On a CPU its steps say what the driver says, and its tests run them on the CPU
backends.
"""
