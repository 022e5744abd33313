"""A mutation fuzzer over everything that reads a file: ``make fuzz MINUTES=30``, or ``python -m fuzz`` in tests/.

``seeds`` makes good files by code, ``ways`` damages them, ``worker`` reads what comes out in a process of its own,
``oracle`` says what the format itself could have known, and ``campaign`` counts. docs/reliability.md shows the last
long run.
"""
