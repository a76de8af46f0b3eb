"""Changes to the source of a page before it is read: download links, numbers that do not break."""

from __future__ import annotations

import json
import re

_SPREAD = re.compile(r"(?<=\d) \+- (?=\d)")
_NO_BREAK = "\u00a0"
_JOINER = "\u2060"  # a line may break after a hyphen, even before a space that does not break


def add_download(text: str, name: str) -> str:
    """Return a notebook with a link to download it below its title; the stored file has none."""
    notebook = json.loads(text)
    title, _, rest = "".join(notebook["cells"][0]["source"]).partition("\n")
    link = f"{{download}}`Download this notebook <{name}.ipynb>`"
    notebook["cells"][0]["source"] = f"{title}\n\n{link}\n{rest}"
    return json.dumps(notebook)


def keep_spreads_together(text: str) -> str:
    """Return Markdown whose tables do not break a line within `0.5 +- 0.1`."""
    lines = text.split("\n")
    return "\n".join(_keep(line) if line.startswith("|") else line for line in lines)


def _keep(line: str) -> str:
    return _SPREAD.sub(f"{_NO_BREAK}+-{_JOINER}{_NO_BREAK}", line)
