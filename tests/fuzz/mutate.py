"""Mutations of bytes, of texts and of nested values; all that is random comes from `rng`."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

NUMBERS = (
    0, -1, 1, 2, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1,
    2**62, 2**63 - 1, 2**63, 2**64, 10**30, -(2**31), -(2**63), 0.5, -0.0, 1e-310, 1e38, 1e300,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "\n", "\x1b[31m", "\u202e", "\ufeff", "é",
    "\U0001d7da", "\uff11", "²", "\ud800", "nan",
    "inf", "-", "1e999", "0x10", "1_0", "null", "true", "~", "../../x", "/dev/zero", "{", "}",
    "{loss=1}", "[", "%s", "'", '"', "\\", "#", ":", ",", ";", "\t", "\r", "a" * 300, "9" * 400,
)  # fmt: skip
_WORDS = tuple(
    struct.pack(f"{order}{kind}", value)
    for order in "<>"
    for kind, values in (
        ("B", (0, 1, 127, 128, 255)),
        ("H", (0, 1, 255, 32767, 32768, 65535)),
        ("I", (0, 1, 65536, 2**31 - 1, 2**31, 2**32 - 1)),
        ("Q", (0, 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)),
        ("f", (float("nan"), float("inf"), 1e38)),
        ("d", (float("nan"), float("-inf"), 1e300)),
    )
    for value in values
)


def mutated_bytes(rng: random.Random, data: bytes, *, header: int = 256) -> bytes:
    """Return other bytes: flipped bits, extreme numbers, cut, repeated, swapped or lost blocks.

    Args:
        rng: source of randomness.
        data: bytes to change.
        header: bytes at the front that are changed half of the time.
    """
    changes: tuple[Callable[..., bytes], ...] = (flipped, flipped, overwritten, zeroed, cut)
    return rng.choice((*changes, grown, doubled, removed, swapped))(rng, data, header)


def _place(rng: random.Random, data: bytes, header: int) -> int:
    end = min(header, len(data)) if rng.random() < 0.5 else len(data)
    return rng.randrange(max(end, 1))


def _block(rng: random.Random, data: bytes, header: int) -> tuple[int, int]:
    start = _place(rng, data, header)
    return start, start + rng.choice((1, 2, 4, 8, 16, 64, 512, 4096))


def flipped(rng: random.Random, data: bytes, header: int = 0) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[_place(rng, data, header)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(rng: random.Random, data: bytes, header: int = 0) -> bytes:
    """Write an extreme number over some bytes."""
    word, place = rng.choice(_WORDS), _place(rng, data, header)
    return data[:place] + word + data[place + len(word) :]


def zeroed(rng: random.Random, data: bytes, header: int = 0) -> bytes:
    """Write zeros, ones or noise over a block."""
    start, stop = _block(rng, data, header)
    n = len(data[start:stop])
    return data[:start] + rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n))) + data[stop:]


def cut(rng: random.Random, data: bytes, header: int = 0) -> bytes:
    """Lose the end."""
    return data[: rng.choice((_place(rng, data, header), max(len(data) - rng.randrange(1, 9), 0)))]


def grown(rng: random.Random, data: bytes, header: int = 0) -> bytes:
    """Add bytes to the end."""
    n = rng.choice((1, 8, 1000))
    return data + rng.choice((bytes(n), rng.randbytes(n), data[-n:]))


def doubled(rng: random.Random, data: bytes, header: int = 0) -> bytes:
    """Repeat a block."""
    start, stop = _block(rng, data, header)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 9)) + data[stop:]


def removed(rng: random.Random, data: bytes, header: int = 0) -> bytes:
    """Lose a block."""
    start, stop = _block(rng, data, header)
    return data[:start] + data[stop:]


def swapped(rng: random.Random, data: bytes, header: int = 0) -> bytes:
    """Swap two blocks."""
    first, second = sorted(_place(rng, data, header) for _ in range(2))
    n = min(rng.choice((1, 4, 64, 512)), second - first)
    a, b = data[first : first + n], data[second : second + n]
    return data[:first] + b + data[first + n : second] + a + data[second + n :]


def mutated_text(rng: random.Random, text: str, marks: str = "()[]{},:=+*\"'") -> str:
    """Return another text: characters, words and lines changed, lost, repeated, nested, extreme.

    Args:
        rng: source of randomness.
        text: text to change.
        marks: characters with a meaning in the format.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(text) + 1)
        stop = min(len(text), start + rng.choice((0, 1, 1, 2, 5, 20)))
        middle = text[start:stop]
        text = text[:start] + rng.choice((
            rng.choice(TEXTS),
            str(rng.choice(NUMBERS)),
            rng.choice(marks),
            "",
            middle * rng.choice((2, 2, 50, 20_000)),
            rng.choice(marks) * rng.choice((2, 60, 3_000, 100_000)),
            chr(rng.randrange(0xD800)),
        )) + text[stop:]  # fmt: skip
        if rng.random() < 0.2:
            text = _lines(rng, text)
        if rng.random() < 0.2:
            text = _number(rng, text)
    return text


def _lines(rng: random.Random, text: str) -> str:
    """Repeat, lose or swap lines."""
    lines = text.splitlines(keepends=True) or [""]
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    change = rng.randrange(3)
    if change == 0:
        lines.insert(j, lines[i])
    elif change == 1:
        del lines[i]
    else:
        lines[i], lines[j] = lines[j], lines[i]
    return "".join(lines)


def _number(rng: random.Random, text: str) -> str:
    """Replace one number of a text by an extreme one."""
    places = [k for k, mark in enumerate(text[:20_000]) if mark.isascii() and mark.isdigit()]
    if not places:
        return text
    start = stop = rng.choice(places)
    while stop < len(text) and (text[stop].isdigit() or text[stop] in ".e"):
        stop += 1
    return text[:start] + str(rng.choice(NUMBERS)) + text[stop:]


def mutated_tree(rng: random.Random, tree: Any) -> Any:
    """Return nested dictionaries and lists with one to three entries changed, lost or swapped."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = _changed(rng, tree)
    return tree


def any_value(rng: random.Random) -> Any:
    """Return an extreme number, a hostile text, or a container."""
    return rng.choice((
        rng.choice(NUMBERS), rng.choice(NUMBERS), rng.choice(TEXTS), None, True, [], {}, [[]],
        [rng.choice(NUMBERS)] * 3, {rng.choice(TEXTS): rng.choice(NUMBERS)}, nested(rng),
    ))  # fmt: skip


def nested(rng: random.Random) -> Any:
    """Return lists in lists."""
    value: Any = 1
    for _ in range(rng.choice((5, 60, 400))):
        value = [value]
    return value


def _changed(rng: random.Random, tree: Any) -> Any:
    if not isinstance(tree, (dict, list)) or not tree:
        return any_value(rng)
    names = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    name, other = rng.choice(names), rng.choice(names)
    copied: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    change = rng.random()
    if change < 0.7:
        copied[name] = _changed(rng, copied[name])
    elif change < 0.8:
        del copied[name]
    elif change < 0.9:
        copied[name], copied[other] = copied[other], copied[name]
    elif isinstance(copied, dict):
        copied[rng.choice(TEXTS)] = copied.pop(name)
    else:
        copied.insert(name, copied[other])
    return copied
