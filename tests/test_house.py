"""The size of the house: lines of each room, shown by `pytest -s tests/test_house.py`."""

from __future__ import annotations

from pathlib import Path

import dense_imb
from tests.test_imports import FLOORS, room_of

ROOT = Path(dense_imb.__file__).parent
BUDGET = 29_000  # lines of Python for today's features; a question, not a target


def lines_of_rooms() -> dict[str, int]:
    """Lines of each room; modules beside the rooms count as rooms, the front door as "house"."""
    lines: dict[str, int] = {}
    for path in sorted(ROOT.rglob("*.py")):
        room = room_of(path)
        room = "house" if room.startswith("__") else room
        lines[room] = lines.get(room, 0) + len(path.read_text().splitlines())
    return lines


def format_table(lines: dict[str, int]) -> str:
    """One line a room, the largest first, and the total beside the budget."""
    rows = sorted(lines.items(), key=lambda row: -row[1])
    total = sum(lines.values())
    table = [f"{room:<14}{count:>7,}{100 * count / total:>6.1f} %" for room, count in rows]
    share = f"{100 * total / BUDGET:.0f} % of {BUDGET:,}"
    return "\n".join([*table, f"{'total':<14}{total:>7,}   {share}"])


def test_every_room_is_counted():
    lines = lines_of_rooms()
    print(f"\n{format_table(lines)}")
    assert set(lines) == set().union(*FLOORS) | {"house"}
    assert all(count > 0 for count in lines.values())
