"""Releases of the libraries that losses are compared with."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

import pytest

MONAI_IGNORES = ("monai", "1.6.1", "`ignore_index` of its losses")
SMP_FOCAL = ("segmentation-models-pytorch", "0.6", "focal loss with means over channels")
SMP_JACCARD = ("segmentation-models-pytorch", "0.6", "`ignore_index` of JaccardLoss")


def is_older(release: str, wanted: str) -> bool:
    """Whether a release is older than the wanted one.

    Example:
        >>> is_older("1.6.0", "1.6.1"), is_older("0.6.0", "0.6"), is_older("1.10rc1", "1.9")
        (True, False, False)
    """
    first, second = (
        [int(number) for number in re.findall(r"\d+", one)[:3]] for one in (release, wanted)
    )
    return first < second


def needs(library: str, wanted: str, what: str) -> pytest.MarkDecorator:
    """Return the mark that skips a test with an older release of a library."""
    try:
        release = version(library)
    except PackageNotFoundError:
        release = wanted  # the test says itself what it misses
    reason = f"{library} {release} is older than {wanted}, the first with this {what}"
    return pytest.mark.skipif(is_older(release, wanted), reason=reason)
