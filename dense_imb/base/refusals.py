"""Refusals of bad input, kept as data and rendered for Python or for the command line.

A sentence names an option in braces, `{images.labels}` or `{images.labels=0 255}`. Python shows
`images.labels=0 255`, the command line its own spelling of the same option.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

_Problem = TypeVar("_Problem", bound=Exception)

# our own markup; nothing else is parsed
_BRACE = "\ue000"  # stands for a literal brace until a sentence is rendered
_OPTION = re.compile(r"\{([A-Za-z_][\w.]*)(?:=([^{}]*))?\}")


def option(name: str, value: object | None = None) -> str:
    """Return the markup of an option, for a sentence of `Refused`.

    Braces in the value are kept out of the markup: write such options as text.

    Example:
        >>> option("images.patch", 128)
        '{images.patch=128}'
    """
    return f"{{{name}}}" if value is None else f"{{{name}={value}}}"


def render(sentence: str, write: Callable[[str, str | None], str]) -> str:
    """Replace every marked option of a sentence.

    Args:
        sentence: text with options in braces.
        write: returns the text of an option from its name and its value, None without a value.
    """
    rendered = _OPTION.sub(lambda match: write(match[1], match[2]), sentence)
    return rendered.replace(_BRACE, "{")


def literal(text: object) -> str:
    """Return a text whose braces are no markup, for example a path.

    Example:
        >>> render(f"no run in {literal('runs/{fold}')}", in_python)
        'no run in runs/{fold}'
    """
    return str(text).replace("{", _BRACE)


def in_python(name: str, value: str | None) -> str:
    """Return an option as Python code names it.

    Example:
        >>> in_python("images.labels", "0 255")
        '`images.labels=0 255`'
    """
    return f"`{name}`" if value is None else f"`{name}={value}`"


class Refused(ValueError):
    """Bad input: what was expected, what came, and the cure.

    Args:
        wanted: what was expected, without "Expected" and without a full stop.
        got: what came instead.
        cure: what to do, without a full stop; "" where none is known.
        argument: name of the argument or option at fault, where there is one.

    Example:
        >>> print(Refused("masks", "none", "name their folder with {images.masks=FOLDER}"))
        Expected masks, got none; name their folder with `images.masks=FOLDER`.
    """

    def __init__(self, wanted: str, got: object, cure: str = "", *, argument: str = "") -> None:
        self.wanted, self.got, self.cure, self.argument = wanted, str(got), cure, argument
        super().__init__(wanted, got, cure)

    @property
    def sentence(self) -> str:
        """The sentence with options still in braces."""
        return f"Expected {self.wanted}, got {literal(self.got)}{self.cure and f'; {self.cure}'}."

    def __str__(self) -> str:
        return render(self.sentence, in_python)


class RefusedType(Refused, TypeError):
    """A `Refused` of an argument of the wrong type."""


class RefusedFile(Refused, FileExistsError):
    """A `Refused` of a file that is there already, or in the way."""


def refusal(sentence: str) -> Refused:
    """Return a refusal of another shape than "Expected X, got Y".

    Example:
        >>> print(refusal("`DiceLoss` takes no `mask`; drop {mask}."))
        `DiceLoss` takes no `mask`; drop `mask`.
    """
    return _Sentence(sentence)


class _Sentence(Refused):
    def __init__(self, sentence: str) -> None:
        super().__init__("", "")
        self.args = (sentence,)

    @property
    def sentence(self) -> str:
        return str(self.args[0])


def mark_shared(problem: _Problem) -> _Problem:
    """Mark a problem that all processes raise, so that the command of the first one prints it."""
    vars(problem)["is_shared"] = True
    return problem


def is_shared(problem: Exception) -> bool:
    """Tell whether a problem was marked by `mark_shared`."""
    return "is_shared" in vars(problem)


_LONGEST = 200  # characters of a name that is compared with others


def suggest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Return " Did you mean ...?" with the nearest known name, or "" where none is near.

    Hyphens and underscores, upper and lower case count as equal.

    Example:
        >>> suggest("Fast-UNet", ["autoencoder", "fast_unet"])
        " Did you mean 'fast_unet'?"
        >>> suggest("xyz", ["fast_unet"])
        ''
    """
    near = nearest(name, known, cutoff=cutoff)
    return f" Did you mean {near!r}?" if near is not None else ""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the known name that is spelt most like `name`; None where none is near."""
    if len(name) > _LONGEST:  # the time to compare names grows with their length
        return None
    plain = {_plain(one): one for one in known}
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=cutoff)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
