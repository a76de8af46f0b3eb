"""Values of options: checked against a type, from a YAML file or from words on a command line.

The types are those of our configurations: int, float, str, bool, dict, Literal, lists of them, and
unions with None.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from dense_imb.base.refusals import Refused, RefusedType, refusal, suggest
from dense_imb.base.yaml_text import parse_yaml

_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_EXAMPLES = {int: "0 255", float: "0.5 1", str: "background crack"}


def build_dataclass(of: type[Any], stored: Any, before: str = "") -> Any:
    """Build nested dataclasses from nested names and values; refuse unknown names and wrong types.

    Args:
        of: the dataclass.
        stored: names and values, for example from a YAML file.
        before: dotted name of the place in the whole, for messages.
    """
    if not isinstance(stored, Mapping):  # whatever a YAML file holds
        place = f"`{before.rstrip('.')}`" if before else "a configuration"
        raise RefusedType(f"names and values in {place}", repr(stored))
    hints = get_type_hints(of)
    values = {}
    for name, value in stored.items():
        if name not in hints:
            near = suggest(f"{before}{name}", option_types(of, before), cutoff=0.6)
            raise refusal(f"`{before}{name}` is no name of a configuration.{near}")
        hint = hints[str(name)]
        if is_dataclass(hint):
            values[name] = build_dataclass(hint, value, f"{before}{name}.")  # type: ignore[arg-type]
        else:
            values[name] = check_value(f"{before}{name}", value, hint)
    return of(**values)


def option_types(of: type[Any], before: str = "") -> dict[str, Any]:
    """Return the type of every option of nested dataclasses, by dotted name.

    Args:
        of: the dataclass.
        before: dotted name of its place.
    """
    hints = get_type_hints(of)
    by_name: dict[str, Any] = {}
    for one in fields(of):
        hint = hints[one.name]
        if is_dataclass(hint):
            by_name |= option_types(hint, f"{before}{one.name}.")  # type: ignore[arg-type]
        else:
            by_name[before + one.name] = hint
    return by_name


def check_value(name: str, value: Any, hint: Any) -> Any:
    """Return the value as its type wants it; refuse another type.

    Example:
        >>> check_value("steps", 3, int), check_value("rate", 1, float)
        (3, 1.0)
        >>> check_value("labels", "x", list[int] | None)
        Traceback (most recent call last):
        dense_imb.base.refusals.RefusedType: Expected a list of whole numbers in `labels`...
    """
    for choice in _choices(hint):
        fits, checked = _fit(value, choice)
        if fits:
            return checked
    literals = [one for choice in _choices(hint) for one in _literals(choice)]
    if literals:
        others = (c for c in _choices(hint) if not _literals(c) and c is not types.NoneType)
        listed = ", ".join([*map(repr, literals), *map(_describe, others)])
        near = suggest(str(value), [str(one) for one in literals], cutoff=0.7)
        raise refusal(f"Expected {{{name}}} to be one of {listed}, got {value!r}.{near}")
    wanted = " or ".join(
        _describe(choice) for choice in _choices(hint) if choice is not types.NoneType
    )
    element = next((get_args(c)[0] for c in _choices(hint) if get_origin(c) is list), None)
    example = "" if element is None else _EXAMPLES.get(element, "")
    if int in _choices(hint) and example:  # one number, or a range
        example = "100 200"
    cure = f"write {{{name}={example}}}" if example else ""
    raise RefusedType(f"{wanted} in {{{name}}}", repr(value), cure, argument=name)


def read_words(name: str, words: Sequence[str], hint: Any) -> Any:
    """Return the value of an option from the words typed after it.

    One word for a list is a list of one; words for a list may be separated by commas.

    Example:
        >>> read_words("labels", ["0", "255"], list[int] | None)
        [0, 255]
        >>> read_words("trackers", ["tensorboard"], list[str])
        ['tensorboard']
        >>> read_words("noise", ["200"], int | list[int])
        200
    """
    choices = _choices(hint)
    elements = [get_args(choice)[0] for choice in choices if get_origin(choice) is list]
    if not words:
        if elements and types.NoneType not in choices:
            return []
        raise Refused(f"a value behind {{{name}}}", "none")
    text = " ".join(words)
    if types.NoneType in choices and text in ("null", "none", "None"):
        return None
    if len(words) == 1 and (str in choices or any(_literals(c) for c in choices)):
        if elements and text.lstrip().startswith("["):
            return check_value(name, _yaml(text), hint)
        return check_value(name, text, hint)
    value = _yaml(text)
    if elements and not isinstance(value, list):
        parts = list(words) if len(words) > 1 else text.replace(",", " ").split()
        parts = [part for word in parts for part in _split(word, elements[0])]
        if len(parts) == 1 and int in choices:
            return check_value(name, value, hint)
        is_text = elements[0] is str
        value = [part if is_text else _yaml(part) for part in (words if is_text else parts)]
    elif len(words) > 1 and not isinstance(value, list):
        raise Refused(f"one value behind {{{name}}}", repr(text))
    return check_value(name, value, hint)


def _split(word: str, element: Any) -> list[str]:
    return [word] if element is str else word.replace(",", " ").split()


def _yaml(text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _literals(choice: Any) -> tuple[Any, ...]:
    return get_args(choice) if get_origin(choice) is Literal else ()


def _fit(value: Any, choice: Any) -> tuple[bool, Any]:
    """Whether a value has a type, and the value in that type."""
    origin = get_origin(choice)
    if origin is Literal:
        named = {False: "no", True: "yes"}.get(value, value) if isinstance(value, bool) else value
        return named in get_args(choice), named
    if origin is list:
        if not isinstance(value, list | tuple):
            return False, None
        fitted = [_fit(one, get_args(choice)[0]) for one in value]
        return all(fits for fits, _ in fitted), [one for _, one in fitted]
    if origin is dict or choice is dict:
        return isinstance(value, dict), value
    if choice is Any:
        return True, value
    if choice is types.NoneType:
        return value is None, None
    if isinstance(value, bool):
        return choice is bool, value
    if choice is float and isinstance(value, int | float):
        return True, float(value)
    if choice is float and isinstance(value, str):
        return _as_float(value)
    return isinstance(value, choice), value


def _as_float(text: str) -> tuple[bool, float | None]:
    """YAML reads 1e-3 as a text."""
    try:
        return True, float(text)
    except ValueError:
        return False, None


def _describe(choice: Any) -> str:
    if get_origin(choice) is list:
        plural = {int: "whole numbers", float: "numbers", str: "texts"}
        return f"a list of {plural.get(get_args(choice)[0], 'values')}"
    if get_origin(choice) is dict or choice is dict:
        return "names and values"
    return _NAMES.get(choice, str(choice))
