"""Rewrites all snapshots from the package as it is now.

    python -m tests.snapshots.remake

For changes of names or help that are wanted: read the diff before it is committed, and say in
CHANGELOG.md what users must write now. Needs all optional libraries of the extra `test`.
"""

from __future__ import annotations

import shutil

from tests.snapshots.public import (
    FOLDER,
    command_name,
    commands,
    help_text,
    names_text,
    packages,
    snapshot_path,
)


def main() -> None:
    """Write the files, and remove those of what is gone."""
    texts = {snapshot_path("names", package): names_text(package) for package in packages()}
    texts |= {snapshot_path("help", command_name(words)): help_text(words) for words in commands()}
    for kind in ("names", "help"):
        shutil.rmtree(FOLDER / kind, ignore_errors=True)
        (FOLDER / kind).mkdir()
    for path, text in texts.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
