"""Fault harness: every command under kills, signals, full disks, races and hostile names.

    python -m tests.faults --minutes 30 --seed 0 --out soak.json

`commands.py` holds a row for each command, `faults.py` a row for each fault; `case.py` runs one of
each and checks what is left. docs/reliability.md says what is guaranteed.
"""
