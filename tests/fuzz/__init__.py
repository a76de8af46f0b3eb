"""Fuzzing: damaged and hostile files of every format that is read.

    python -m tests.fuzz --mutants 2000 --seed 0 --out fuzz.json

`formats/` holds a row for each format: a valid file, its reader, its mutators. `runner.py` reads
the mutants in forked processes with limits. docs/reliability.md shows the results.
"""
