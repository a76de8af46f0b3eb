"""Pages of the API reference: one a room, one a public name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from sphinx.util.inspect import stringify_signature

from docstrings import first_sentence, to_markdown
from public_names import Name, Package

_HEADINGS = {
    "class": "Classes",
    "function": "Functions",
    "exception": "Errors and warnings",
    "data": "Constants",
}
_INTRODUCTION = """# API by room

Every public name has a page of its own: signature, arguments, example. A room is a package of
`dense_imb`; [architecture](../architecture.md) says how they depend on each other, and
[versions and deprecations](../deprecation.md) what *public* promises. The names of `dense_imb`
itself are the shortest way in. {ref}`genindex` lists every name from A to Z.
"""
_LONGEST_VALUE = 300  # characters of a constant that a page shows


def pages_of_api(packages: dict[str, Package]) -> Iterator[tuple[str, str]]:
    """Yield the name and the Markdown of each page."""
    yield "index", _page_of_rooms(packages)
    for name, package in packages.items():
        yield name, _page_of_package(package)
        for one in package.own:
            yield one.path, page_of_name(one)


def page_of_name(one: Name) -> str:
    """Return the page of a class, a function or a constant."""
    if one.kind == "data":
        head = one.name
        body = f"{_comment_above(one)}\n\n{_shown_value(one.value)}"
        members = ""
    else:
        head = f"{one.name}{_signature_text(one.value)}"
        body = to_markdown(inspect.getdoc(one.value) or "")
        members = "\n\n".join(_members(one.value)) if inspect.isclass(one.value) else ""
        bases = _bases_text(one.value) if inspect.isclass(one.value) else ""
        body = f"{bases}{body}"
    return (
        f"# {one.name}\n\n:::::{{py:{one.kind}}} {head}\n:module: {one.package}\n\n"
        f"{body}\n\n{members}\n:::::\n"
    )


def _page_of_rooms(packages: dict[str, Package]) -> str:
    rows = [
        f"| [`{name}`]({name}.md) | {first_sentence(package.module.__doc__ or '')} "
        f"| {len(package.listed)} |"
        for name, package in packages.items()
    ]
    table = "\n".join(["| room | holds | names |", "| --- | --- | --: |", *rows])
    return (
        f"{_INTRODUCTION}\n{table}\n\n{_toctree([f'{_short(name)} <{name}>' for name in packages])}"
    )


def _page_of_package(package: Package) -> str:
    name = package.module.__name__
    parts = [f"# {name}", to_markdown(inspect.getdoc(package.module) or "")]
    for kind, heading in _HEADINGS.items():
        rows = [
            f"| [`{one.name}`]({one.path}.md) | {_summary(one)} |"
            for one in package.listed
            if one.kind == kind
        ]
        if rows:
            parts.append(
                "\n".join([f"## {heading}\n", "| name | summary |", "| --- | --- |", *rows])
            )
    if package.own:
        parts.append(_toctree([one.path for one in package.own]))
    return "\n\n".join(parts) + "\n"


def _toctree(names: list[str]) -> str:
    lines = "\n".join(names)
    return f"```{{toctree}}\n:hidden:\n\n{lines}\n```\n"


def _short(package: str) -> str:
    return package.removeprefix("dense_imb.")


def _summary(one: Name) -> str:
    text = _comment_above(one) if one.kind == "data" else inspect.getdoc(one.value) or ""
    return first_sentence(text).replace("|", "\\|")


def _members(cls: type) -> Iterator[str]:
    """Yield the public methods and properties of a class: its own, then those it inherits.

    Of the inherited ones, those of dense_imb's classes with a docstring are on the page.
    """
    for name, member in vars(cls).items():
        yield from _shown_member(cls, name, member)
    seen = set(vars(cls))
    for base in _bases_of_ours(cls):
        for name, member in vars(base).items():
            if name not in seen and _docstring(cls, name):
                yield from _shown_member(cls, name, member)
        seen |= set(vars(base))


def _shown_member(cls: type, name: str, member: Any) -> Iterator[str]:
    """Yield the text of a member, if it is a public method or property."""
    if name.startswith("_") or inspect.isclass(member):
        return
    value = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
    if isinstance(member, property) or type(member).__name__ == "cached_property":
        yield _member("property", name, "", _docstring(cls, name))
    elif inspect.isfunction(value):
        option = {classmethod: ":classmethod:", staticmethod: ":staticmethod:"}
        text = _signature_text(getattr(cls, name), is_method=not isinstance(member, staticmethod))
        yield _member(
            "method", f"{name}{text}", option.get(type(member), ""), _docstring(cls, name)
        )


def _bases_of_ours(cls: type) -> list[type]:
    return [one for one in cls.__mro__[1:] if one.__module__.split(".")[0] == "dense_imb"]


def _docstring(cls: type, name: str) -> str:
    """Return the docstring of a member, or of the one of a base that it overrides."""
    for one in (cls, *_bases_of_ours(cls)):
        member = vars(one).get(name)
        if member is not None:
            function = getattr(member, "fget", None) or getattr(member, "func", member)
            if text := getattr(function, "__doc__", None):
                return str(text)
    return ""


def _member(kind: str, head: str, option: str, docstring: str) -> str:
    text = to_markdown(inspect.cleandoc(docstring))
    options = f"{option}\n" if option else ""
    return f"::::{{py:{kind}}} {head}\n{options}\n{text}\n::::"


def _signature_text(value: Callable[..., Any], is_method: bool = False) -> str:
    """Return the signature as Python writes it; nothing for those that have none."""
    if getattr(value, "_is_protocol", False):
        return ""
    bare = (object, Exception)
    if inspect.isclass(value) and all(
        getattr(value, name) in [getattr(one, name) for one in bare]
        for name in ("__init__", "__new__")
    ):
        return ""
    try:
        found = inspect.signature(value)
    except (ValueError, TypeError):
        return ""
    if is_method and next(iter(found.parameters), "") in ("self", "cls"):
        found = found.replace(parameters=[*found.parameters.values()][1:])
    if inspect.isclass(value):
        found = found.replace(return_annotation=inspect.Signature.empty)
    text = stringify_signature(found, unqualified_typehints=True)
    text = text.replace("<factory>", "...").replace("<function <lambda>>", "...")
    return re.sub(r"<(?:function|class|built-in function|enum) '?(?:\w+\.)*(\w+).*?>", r"\1", text)


def _bases_text(cls: type) -> str:
    bases = [one for one in cls.__bases__ if one is not object and not one.__name__.startswith("_")]
    named = [one.__name__ for one in bases if one.__module__ not in ("abc", "typing")]
    if not named or "tuple" in named:
        return ""
    return f"Bases: {', '.join(f'`{name}`' for name in named)}\n\n"


def _comment_above(one: Name) -> str:
    """Return the comment above, or behind, the assignment of a constant."""
    module = inspect.getmodule(one.value)
    for source in dict.fromkeys(filter(None, (module, *_modules_with(one)))):
        lines = inspect.getsource(source).splitlines()
        for k, line in enumerate(lines):
            if re.match(rf"(?:\w+, )*{one.name}\b[^=(]*=", line):
                above: list[str] = []
                while k > 0 and lines[k - 1].startswith("# "):
                    k -= 1
                    above.insert(0, lines[k][2:])
                behind = re.search(r"  # (.*)$", line)
                return _as_sentence(" ".join(above) or (behind[1] if behind else ""))
    return ""


def _modules_with(one: Name) -> Iterator[Any]:
    import sys

    for name, module in list(sys.modules.items()):
        if name.startswith(one.package) and getattr(module, one.name, None) is one.value:
            yield module


def _as_sentence(text: str) -> str:
    return text and f"{text[0].upper()}{text[1:].rstrip('.')}."


def _shown_value(value: Any) -> str:
    if isinstance(value, dict):
        rows = "\n".join(f"- `{key}`{_note(entry)}" for key, entry in value.items())
        return f"Keys:\n\n{rows}"
    text = repr(value)
    return f"```python\n{text}\n```" if len(text) <= _LONGEST_VALUE else ""


def _note(entry: Any) -> str:
    if isinstance(entry, str):
        return f": {entry}"
    name = getattr(entry, "__name__", None) or type(entry).__name__
    return f": `{name}`"
