"""The folder of a run before and while it trains: free or resumable, and locked."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from dense_imb.base.files import clear_leftovers
from dense_imb.base.locks import LOCK, locked_folder
from dense_imb.base.refusals import Refused, mark_shared
from dense_imb.config import AUTO, TrainConfig
from dense_imb.runs.read import read_config
from dense_imb.runs.stages import FIRST
from dense_imb.runs.write import CHECKPOINTS
from dense_imb.tasks.recipe import Recipe

LIVE = "live.html"  # the page of a training, written by a callback of the room report
# options that change nothing that is learnt
_FREE = ("save_every", "trackers", "allow_import")
# names of a run's own files while they are written, by this version and by older ones
_OWN = (
    r"config\.yaml|environment\.json|history\.csv|metrics\.json|validation_(scores|events)\.json"
    r"|(best|last|sample_hashes)\.safetensors|(step|best)-\d{8,}\.pt(\.sha256)?"
)
_PARTIAL = re.compile(rf"\.?({_OWN})\.(\d+|[0-9a-f]{{6}}-\d+-\d+)\.partial")

_REPLACED = re.compile(r"(natural)\.\d+\.(old|new)")


def check_folder(folder: Path, recipe: Recipe, *, resume: bool) -> None:
    """Refuse to overwrite a run, and to continue another one.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb import HitsConfig, TrainConfig
        >>> from dense_imb.runs import Recipe, check_folder
        >>> recipe = Recipe.of(TrainConfig(HitsConfig(train="clean.h5")))
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> check_folder(folder, recipe, resume=False)  # free
        >>> _ = (folder / "notes.txt").write_text("mine")
        >>> check_folder(folder, recipe, resume=False)
        Traceback (most recent call last):
        ValueError: Expected a new or empty folder for the run, got ..., with files.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for the run, got the file {folder}.")
    stored = folder / "config.yaml"
    if stored.exists() and not resume:
        raise Refused(
            "a new folder for the run",
            f"{folder}, which holds one",
            "continue it with {resume}, or choose another name",
        )
    if folder.is_dir() and not stored.exists() and has_files(folder):
        raise ValueError(f"Expected a new or empty folder for the run, got {folder}, with files.")
    if stored.exists():
        if differences := _describe_differences(folder, recipe.whole_config):
            raise Refused(
                f"the config of the run in {folder}",
                f"another ({differences})",
                "choose a new folder, with {warm_start=RUN} to begin from its weights",
            )
        if recipe.second is not None:
            _check_first(folder / FIRST, recipe.config)


def with_stored_loss(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe of a resumed run, with the loss that its data chose before."""
    stored = folder / "config.yaml"
    if recipe.whole_config.loss != AUTO or not stored.exists():
        return recipe
    return Recipe.of(recipe.with_loss(read_config(stored).loss).whole_config)


def _check_first(folder: Path, config: TrainConfig) -> None:
    """Refuse a first stage that is not this run's; there may be none yet."""
    if not (folder / "config.yaml").exists():
        if folder.is_dir() and has_files(folder):
            raise ValueError(
                f"Expected a new or empty folder for the run, got {folder}, with files."
            )
    elif differences := _describe_differences(folder, config):
        raise ValueError(
            f"Expected the first stage of this run in {folder}, got another run ({differences}); "
            "bring it back, or train in a new folder."
        )


def _describe_differences(folder: Path, config: TrainConfig) -> str:
    """Describe the differences between the configuration of the run in a folder and another."""
    differences = config_differences(asdict(read_config(folder / "config.yaml")), asdict(config))
    return "; ".join(
        f"{name}: {there} there, {here} here"
        for name, there, here in differences
        if name not in _FREE
    )


def config_differences(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return the options whose values differ, with both values."""
    there, here = _flat(before), _flat(now)
    return [(n, there.get(n), here[n]) for n in here if there.get(n) != here[n]]


def _flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and name != "options":
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat


def has_checkpoint(folder: Path) -> bool:
    """Tell whether the run in a folder has a checkpoint to resume from."""
    return any((folder / CHECKPOINTS).glob("step-*.pt"))


def has_files(folder: Path, *, except_for: Collection[str] = ()) -> bool:
    """Tell whether a folder holds files other than locks, unfinished ones and some names."""
    return any(
        path.is_file() and path.name not in (LOCK, *except_for) and path.suffix != ".partial"
        for path in folder.rglob("*")
    )


@contextmanager
def locked(
    folder: Path, accelerator: Accelerator, check: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Allow one run at a time in a folder; the lock ends with the process, however that ends.

    Args:
        folder: folder of the run, which is made.
        accelerator: processes of the run; the main one holds the lock.
        check: called by the main process under the lock. What was checked before may have changed.
    """
    with ExitStack() as held:
        problem: list[OSError | ValueError | None] = [None]
        if accelerator.is_main_process:
            try:
                (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
                held.enter_context(locked_folder(folder))
                check()
                _remove_partial(folder)
            except (OSError, ValueError) as caught:
                problem = [caught]
        broadcast_object_list(problem)  # or the others would wait for the main process
        if problem[0] is not None:
            raise mark_shared(problem[0])
        yield


def _remove_partial(folder: Path) -> None:
    """Remove what a killed run left of its own files; the lock says that nobody writes them now.

    Other files stay: another command may be writing to the folder.
    """
    for path in sorted(folder.glob("*.old")) + sorted(folder.glob("*.new")):
        if match := _REPLACED.fullmatch(path.name):  # by older versions, in two steps
            if path.suffix == ".old" and not (folder / match[1]).exists():
                path.rename(folder / match[1])
            else:
                shutil.rmtree(path, ignore_errors=True)
    for place in (folder, folder / CHECKPOINTS):
        for path in place.iterdir():
            if path.is_file() and _PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)
    clear_leftovers(folder)
