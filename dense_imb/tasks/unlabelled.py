"""Parts that the unlabelled samples of all kinds share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from dense_imb.base.refusals import Refused, refusal
from dense_imb.config import UnlabelledConfig

REST = "use {labelled_share=0.1} with {unlabelled.rest=true} instead of {unlabelled.train}"


class HeldOutWarning(UserWarning):
    """Unlabelled images that are among the validation or test images.

    Example:
        >>> import warnings
        >>> from dense_imb.runs import HeldOutWarning
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", HeldOutWarning)  # refuse such files
    """


def warn_held_out(n_left: int, n_images: int, place: str) -> None:
    """Warn of images that are left out; refuse if none are left.

    Args:
        n_left: images that are left.
        n_images: images in all.
        place: folder or file of the images.
    """
    if not n_left and n_images:
        raise Refused(
            f"images in {place} that are neither validation nor test images",
            f"none of {n_images}",
            f"give others, or, to learn from training images without their labels, {REST}",
        )
    if n_left < n_images:
        warnings.warn(
            f"unlabelled.train: {n_images - n_left} of {n_images} images in {place} are left out, "
            "as a validation or a test must not be learnt from",
            HeldOutWarning,
            stacklevel=2,
        )


@contextmanager
def naming_the_option() -> Iterator[None]:
    """Put the name of the option before errors about its files."""
    try:
        yield
    except OSError as problem:
        text = str(problem)
        if problem.filename is not None:
            text = f"Expected a file at {problem.filename}, got: {problem.strerror}."
        raise ValueError(f"unlabelled.train: {text}") from problem
    except Refused as problem:
        raise refusal(f"unlabelled.train: {problem.sentence}") from problem
    except ValueError as problem:
        raise ValueError(f"unlabelled.train: {problem}") from problem


def single_place(wanted: UnlabelledConfig) -> str:
    """Return the folder or file of unlabelled images; hits may have several."""
    places = [wanted.train] if isinstance(wanted.train, str) else wanted.train or []
    if len(places) != 1:
        raise ValueError(
            f"Expected `unlabelled.train` as one folder or file of images, got {len(places)}."
        )
    return places[0]
