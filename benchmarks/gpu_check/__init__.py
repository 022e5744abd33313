"""Everything that needs a GPU, in one command of under eight minutes: ``python -m benchmarks.gpu_check --out FILE``.

Each step runs in a separate process with a separate time limit. A step that crashes, hangs or lacks a package does not
affect the others. The file is written after every step. The parent needs only Python, since a bare machine has nothing
else: the steps' packages are installed, without a network, from a folder of wheels (``--wheels``).

**Only its torch steps have run on a GPU** (docs/gpu-check.md). On a CPU its steps report what the driver says, and its
tests run the steps on the CPU backends.
"""
