"""Run a command and print its wall time, CPU time and peak memory: a script that needs nothing but Python.

A process that is forked from a large one counts the large one's memory as its own peak until it has grown beyond it
(Linux keeps the high-water mark of a process across ``exec``). So :mod:`benchmarks.child` never starts a measured
command itself: this small program starts the command.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """``spawn.py REPORT COMMAND ...``: the numbers go to the file REPORT."""
    report, *command = sys.argv[1:]
    begin = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = {
        "exit_code": child.returncode,
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": peak_bytes / 2**20,
    }
    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be imported for this alone
        json.dump(found, file)


if __name__ == "__main__":
    main()
