"""Use the trained network of a run: score hits, write masks of images, or maps of values."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import torch

from dense_imb.base.refusals import Refused, refusal
from dense_imb.engine.processes import joined
from dense_imb.hits import (
    Events,
    Geometry,
    MaskedFile,
    Scorer,
    Sensors,
    mask_file,
    mask_in_shards,
    mask_stream,
    open_hits,
    promised_threshold,
)
from dense_imb.hits.drift import VALIDATION_EVENTS, DriftWarning, EventProfile
from dense_imb.hits.masking import as_point, score_and_mask
from dense_imb.metrics import OperatingPoint
from dense_imb.runs.natural import NATURAL
from dense_imb.runs.read import Run, open_run
from dense_imb.runs.write import CHECKPOINTS, SCORES
from dense_imb.tasks.images.segment import Segmented, segment_images
from dense_imb.tasks.values.predict import Predicted, predict_images

_Path = str | os.PathLike[str]


@overload
def denoise(
    run: Run | Scorer | _Path,
    source: Events,
    *,
    retention: float | None = None,
    fakes: float | None = None,
    purity: float | None = None,
    threshold: float | OperatingPoint | Literal["auto"] | None = None,
    only_kept: bool = False,
    device: str | torch.device | None = None,
) -> Events: ...


@overload
def denoise(
    run: Run | Scorer | _Path,
    source: _Path,
    target: _Path,
    *,
    retention: float | None = None,
    fakes: float | None = None,
    purity: float | None = None,
    threshold: float | OperatingPoint | Literal["auto"] | None = None,
    only_kept: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    keep_shards: bool = False,
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> MaskedFile | None: ...


@overload
def denoise(
    run: Run | Scorer | _Path,
    source: Any,
    *,
    retention: float | None = None,
    fakes: float | None = None,
    purity: float | None = None,
    threshold: float | OperatingPoint | Literal["auto"] | None = None,
    only_kept: bool = False,
    geometry: Geometry | Sensors | None = None,
    device: str | torch.device | None = None,
) -> Any: ...


def denoise(
    run: Run | Scorer | _Path,
    source: Any,
    target: _Path | None = None,
    *,
    retention: float | None = None,
    fakes: float | None = None,
    purity: float | None = None,
    threshold: float | OperatingPoint | Literal["auto"] | None = None,
    only_kept: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    keep_shards: bool = False,
    batch_size: int = 256,
    geometry: Geometry | Sensors | None = None,
    device: str | torch.device | None = None,
) -> Any:
    """Add a score and a verdict (keep) to each hit, of events in memory or of a file.

    Events of NumPy arrays, of tensors or of an awkward array come back as they are given, with two
    more columns; a network of more than two classes adds `class`, the most probable one. A file is
    written to `target`. Several processes, started with torchrun or Accelerate, share its events;
    process 0 returns the result, the others None.

    Args:
        run: run on hits, or its folder, or a scorer such as `run.trained()`.
        source: events, an awkward array with one record an event, or the path of a hits file.
        target: file to write, with a path.
        retention: fraction of the signal to keep (signal efficiency). By default that of the run,
            if none of the next three is given.
        fakes: number of noise hits kept per noise-only event.
        purity: fraction of signal among the kept hits.
        threshold: smallest score to keep, or an operating point. "auto" takes the score with the
            best F1 that the scores of these very hits promise, see `promised_threshold`; it scores
            them twice, and refuses a run without natural probabilities.
        only_kept: keep the kept hits only.
        overwrite: replace an existing target.
        resume: finish an interrupted call, see `dense_imb.hits.mask_in_shards`.
        keep_shards: leave several files with an index, see `dense_imb.hits.mask_in_shards`.
        batch_size: events of a file that are scored together.
        geometry: geometry of an awkward array; by default that of the run.
        device: device to run on; by default a GPU if there is one.

    Example:
        >>> from dense_imb import denoise, pretrained
        >>> from dense_imb.hits import Degradation, degrade, simulate
        >>> noisy = degrade(simulate("arc", 10, seed=1), Degradation(signal=30, noise=200), seed=1)
        >>> clean = denoise(pretrained("arc"), noisy, retention=0.97, device="cpu")
        >>> keep, is_signal = clean.hit["keep"], clean.label > 0
        >>> bool(keep[is_signal].mean() > 0.9), bool(keep[~is_signal].mean() < 0.02)
        (True, True)
    """
    aims = {"retention": retention, "fakes": fakes, "purity": purity}
    if not isinstance(source, (str, os.PathLike)):
        if target is not None:
            raise TypeError(
                f"Expected no `target` with events in memory, got {os.fspath(target)}; write the "
                "result with `HitsWriter`."
            )
        scorer, point, _ = _scorer(run, aims, threshold, device)
        if isinstance(source, Events):
            point = point or as_point(promised_threshold(scorer, source))
            return score_and_mask(scorer, source, point, only_kept=only_kept)
        return _denoise_awkward(scorer, source, point, geometry, only_kept=only_kept)
    if target is None:
        raise TypeError(
            f"Expected `target`, the file to write, with {os.fspath(source)}, got none."
        )
    with joined(None if device is None else torch.device(device).type) as processes:
        scorer, point, validation = _scorer(run, aims, threshold, processes.device or device)
        if point is None:
            with open_hits(source) as hits:
                chosen = promised_threshold(
                    scorer, hits, batch_size=batch_size, over_processes=processes.n > 1
                )
            point = as_point(chosen)
        options: dict[str, Any] = {
            "only_kept": only_kept,
            "overwrite": overwrite,
            "batch_size": batch_size,
            "validation": validation,
        }
        if processes.n > 1 or resume or keep_shards:
            done = mask_in_shards(
                {Path(target): source},
                scorer,
                point,
                resume=resume,
                keep_shards=keep_shards,
                **options,
            )
        else:
            done = [mask_file(source, target, scorer, point, **options)]
    if done and done[0].drift:
        warnings.warn(done[0].drift, DriftWarning, stacklevel=2)
    return done[0] if done else None


def stream(
    run: Run | Scorer | _Path,
    events: Iterable[Events],
    *,
    retention: float | None = None,
    fakes: float | None = None,
    purity: float | None = None,
    threshold: float | OperatingPoint | None = None,
    max_events: int = 1,
    max_seconds: float = 0.05,
    only_kept: bool = False,
    threads: int | None = 1,
    device: str | torch.device | None = None,
) -> Iterator[Events]:
    """Yield the events of a stream with `score` and `keep`, each as soon as it is scored.

    By default events are scored one at a time. With `max_events` those that come within
    `max_seconds` are scored together. `experiments/benchmarks/hit_stream.py` measures latencies.

    Args:
        run: run on hits, or its folder, or a scorer such as `run.trained()`.
        events: events one at a time, or a few together, such as a generator over a socket.
        retention, fakes, purity, threshold, only_kept, device: see `denoise`.
        max_events: largest number of events scored together.
        max_seconds: longest time that an event waits for others.
        threads: CPU threads that score, see `dense_imb.hits.mask_stream`.

    Example:
        >>> from dense_imb.hits import Degradation, HitDensity, degrade, simulate
        >>> noisy = degrade(simulate("arc", 2, seed=1), Degradation(signal=30, noise=200), seed=1)
        >>> [one.n_hits for one in stream(HitDensity(), noisy, threshold=0.7)]
        [230, 230]
    """
    aims = {"retention": retention, "fakes": fakes, "purity": purity}
    scorer, point, _ = _scorer(run, aims, threshold, device)
    if point is None:
        raise refusal("A stream takes no {threshold=auto}, which reads all hits; give a number.")
    return mask_stream(
        scorer,
        point,
        events,
        max_events=max_events,
        max_seconds=max_seconds,
        only_kept=only_kept,
        threads=threads,
    )


def _scorer(
    run: Run | Scorer | _Path,
    aims: Mapping[str, float | None],
    threshold: float | OperatingPoint | Literal["auto"] | None,
    device: str | torch.device | None,
) -> tuple[Scorer, OperatingPoint | None, EventProfile | None]:
    """Return a scorer, its operating point, and the profile of its validation events.

    The point is None for the threshold "auto", which is chosen on the hits themselves.
    """
    if isinstance(run, (str, os.PathLike, Run)):
        folder = run.folder if isinstance(run, Run) else Path(run)
        kind: Any = type(run) if isinstance(run, Run) else Run
        loaded = _load(kind, folder.absolute(), str(device), _state_of(folder))
        if threshold == "auto":
            loaded.run.require_natural()
            return loaded.scorer, None, loaded.validation
        point = loaded.point(aims) if threshold is None else as_point(threshold)
        return loaded.scorer, point, loaded.validation
    if threshold is None or threshold == "auto":
        raise Refused(
            f"{{threshold}} for {run.name}",
            f"{threshold or 'none'}: a scorer alone has no validation events",
            "pass {threshold=0.5}, an operating point, or a run",
        )
    return run, as_point(threshold), None


@dataclass(frozen=True)
class _Loaded:
    """A run that was opened, with its network."""

    run: Run
    scorer: Scorer
    validation: EventProfile | None

    def point(self, aims: Mapping[str, float | None]) -> OperatingPoint:
        """Return the operating point for an aim; the scores are read from the disk once."""
        known = self._points
        key = tuple(aims.items())
        if key not in known:
            known[key] = self.run.operating_point(**aims)
        return known[key]

    @cached_property
    def _points(self) -> dict[tuple[tuple[str, float | None], ...], OperatingPoint]:
        return {}


@lru_cache(maxsize=2)
def _load(
    kind: Callable[[Path], Run], folder: Path, device: str, state: tuple[object, ...]
) -> _Loaded:
    """Open a run and load its network; a call for each event must not read the weights again.

    Args:
        kind: class of the run.
        folder: folder of the run.
        device: device to run on, or "None".
        state: state of its files; another state loads them again.
    """
    run = kind(folder)
    run.require("hits", "denoise")
    scorer = run.trained(device=None if device == "None" else device)
    return _Loaded(run, scorer, run.validation_events())


def _state_of(folder: Path) -> tuple[object, ...]:
    """Return names, sizes and times of the files that a run is read from."""
    names = ("config.yaml", SCORES, VALIDATION_EVENTS, "best.safetensors")
    files = [
        *(folder / name for name in names),
        *(folder / CHECKPOINTS).glob("best-*.pt"),
        *(folder / NATURAL).glob("*"),
    ]
    stats = [(path.name, path.stat()) for path in sorted(files) if path.exists()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _denoise_awkward(
    scorer: Scorer,
    array: Any,
    point: OperatingPoint | None,
    geometry: Geometry | Sensors | None,
    *,
    only_kept: bool,
) -> Any:
    if type(array).__module__.partition(".")[0] != "awkward":
        raise TypeError(
            "Expected events, an awkward array or the path of a hits file, got "
            f"{type(array).__name__}; `Events.from_arrays` makes events of flat arrays."
        )
    from dense_imb.hits import from_awkward, to_awkward

    geometry = getattr(scorer, "geometry", None) if geometry is None else geometry
    if geometry is None:
        raise Refused(
            "the geometry of the awkward array", "none", "pass {geometry}, a grid or sensors"
        )
    events = from_awkward(array, geometry)
    point = point or as_point(promised_threshold(scorer, events))
    return to_awkward(score_and_mask(scorer, events, point, only_kept=only_kept))


def segment(
    run: Run | _Path,
    images: _Path,
    out: _Path,
    *,
    threshold: float | Literal["auto"] | None = None,
    probability: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    show_progress: bool = True,
) -> Segmented:
    """Write the masks of images.

    Args:
        run: run on images with masks, or its folder.
        images: folder of images, one image, or an HDF5 file with the data set `image`.
        out: folder for the masks.
        threshold: probability of the second of two classes above which a pixel has it; by default
            that of the best F1 on the validation images. "auto" takes that of the best F1 that
            the probabilities of these images promise, without labels.
        probability: also write NAME_probability.npy in float32.
        overwrite: replace files of an earlier call.
        device: device to run on; by default a GPU if there is one.
        show_progress: show a progress bar.

    Example:
        >>> import h5py, numpy as np, pathlib, tempfile
        >>> from dense_imb import ImagesConfig, ModelConfig, TrainConfig, segment, train
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> image = np.random.default_rng(0).random((4, 1, 16, 16))
        >>> with h5py.File(folder / "lines.h5", "w") as file:
        ...     file["image"], file["mask"] = image, np.uint8(image[:, 0] > 0.9)
        >>> images = ImagesConfig(str(folder / "lines.h5"))
        >>> tiny = ModelConfig("fast_unet", {"widths": [4, 8]})
        >>> config = TrainConfig(images=images, model=tiny, steps=2, validate_every=2)
        >>> run = train(config, folder / "run", is_quiet=True, device="cpu")
        >>> done = segment(run, folder / "lines.h5", folder / "masks", show_progress=False)
        >>> sorted(path.name for path in (folder / "masks").iterdir())
        ['000000.png', '000001.png', '000002.png', '000003.png', 'segmented.json']
    """
    run = run if isinstance(run, Run) else open_run(run)
    run.require("images", "segment")
    with _shared_images(device, show_progress) as shared:
        return segment_images(
            run,
            images,
            out,
            threshold=threshold,
            probability=probability,
            overwrite=overwrite,
            **shared,
        )


def predict(
    run: Run | _Path,
    images: _Path,
    out: _Path,
    *,
    raw: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    show_progress: bool = True,
) -> Predicted:
    """Write the maps of values of images, see `predict_images`.

    Args:
        run: run on images with maps of values, or its folder.
        images: folder of images, one image, or an HDF5 file with the data set `image`.
        out: folder for the maps, or a file that ends in .h5.
        raw: leave predictions as trained, without the read-out.
        overwrite: replace files of an earlier call.
        device: device to run on; by default a GPU if there is one.
        show_progress: show a progress bar.

    Example:
        >>> import h5py, numpy as np, pathlib, tempfile
        >>> from dense_imb import ModelConfig, TrainConfig, ValuesConfig, predict, train
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> image = np.random.default_rng(0).random((4, 1, 16, 16))
        >>> with h5py.File(folder / "plans.h5", "w") as file:
        ...     file["image"], file["target"] = image, 60.0 * (image > 0.9)
        >>> values = ValuesConfig(str(folder / "plans.h5"), spatial_dims=2)
        >>> tiny = ModelConfig("fast_unet", {"widths": [4, 8]})
        >>> config = TrainConfig(values=values, model=tiny, steps=2, validate_every=2)
        >>> run = train(config, folder / "run", is_quiet=True, device="cpu")
        >>> done = predict(run, folder / "plans.h5", folder / "maps", show_progress=False)
        >>> sorted(path.name for path in (folder / "maps").iterdir())
        ['000000.npy', '000001.npy', '000002.npy', '000003.npy', 'predicted.json']
    """
    run = run if isinstance(run, Run) else open_run(run)
    run.require("values", "predict")
    with _shared_images(device, show_progress) as shared:
        return predict_images(run, images, out, raw=raw, overwrite=overwrite, **shared)


@contextmanager
def _shared_images(
    device: str | torch.device | None, show_progress: bool
) -> Iterator[dict[str, Any]]:
    """Join the processes that share the images of a call, and yield the options of this one."""
    with joined(None if device is None else torch.device(device).type) as processes:
        yield {
            "device": processes.device or device,
            "show_progress": show_progress and processes.is_main,
            "process": processes.rank,
            "n_processes": processes.n,
        }
