"""Events of sparse hits: arrays, files, degradation, frames, simulation, baselines, evaluation.

`dense_imb.hits.format` documents the file format.

Example:
    >>> from dense_imb.hits import BASELINES, PATTERNS
    >>> list(PATTERNS)
    ['arc', 'cross', 'line', 'v', 'parabola', 'ring', 'hemisphere', 'torch']
    >>> list(BASELINES)
    ['identity', 'blank', 'blurred hits', 'hit density', 'median filter', 'DBSCAN']
"""

from dense_imb.base.random import Draws
from dense_imb.hits.baselines import (
    BASELINES,
    BlurredHits,
    DBSCANScorer,
    HitDensity,
    Identity,
    KeepNothing,
    MedianFilter,
    Scorer,
)
from dense_imb.hits.boosting import NeighbourBoosting
from dense_imb.hits.build import from_arrays
from dense_imb.hits.degrade import Degradation, degrade
from dense_imb.hits.evaluation import choose_point, evaluate, noise_sweep, promised_threshold
from dense_imb.hits.events import Events, concatenate
from dense_imb.hits.format import HitsFileError
from dense_imb.hits.frames import (
    Raster,
    encode,
    frames_to_events,
    gap,
    hit_scores,
    paint,
    points,
    rasterise,
    ungap,
)
from dense_imb.hits.geometry import Geometry, Sensors, as_grid
from dense_imb.hits.jagged import from_awkward, to_awkward
from dense_imb.hits.masked import MaskedFile, Masking, read_masking
from dense_imb.hits.masking import mask_events, mask_file, mask_files, score_events
from dense_imb.hits.noise import Blob, Burst, HotLines, HotPixels, MeasuredNoise, Profile, Uniform
from dense_imb.hits.reader import HitsFile, HitsFiles, collate_events, open_hits, verify
from dense_imb.hits.scaling import available_baselines, make_baseline
from dense_imb.hits.sensor_noise import SensorNoise
from dense_imb.hits.shards import MissingShardsError, mask_in_shards
from dense_imb.hits.simulate import PATTERNS, simulate
from dense_imb.hits.stream import mask_stream
from dense_imb.hits.table import Evaluation
from dense_imb.hits.writer import HitsWriter

__all__ = [
    "BASELINES",
    "PATTERNS",
    "Blob",
    "BlurredHits",
    "Burst",
    "DBSCANScorer",
    "Degradation",
    "Draws",
    "Evaluation",
    "Events",
    "Geometry",
    "HitDensity",
    "HitsFile",
    "HitsFileError",
    "HitsFiles",
    "HitsWriter",
    "HotLines",
    "HotPixels",
    "Identity",
    "KeepNothing",
    "MaskedFile",
    "Masking",
    "MeasuredNoise",
    "MedianFilter",
    "MissingShardsError",
    "NeighbourBoosting",
    "Profile",
    "Raster",
    "Scorer",
    "SensorNoise",
    "Sensors",
    "Uniform",
    "as_grid",
    "available_baselines",
    "choose_point",
    "collate_events",
    "concatenate",
    "degrade",
    "encode",
    "evaluate",
    "frames_to_events",
    "from_arrays",
    "from_awkward",
    "gap",
    "hit_scores",
    "make_baseline",
    "mask_events",
    "mask_file",
    "mask_files",
    "mask_in_shards",
    "mask_stream",
    "noise_sweep",
    "open_hits",
    "paint",
    "points",
    "promised_threshold",
    "rasterise",
    "read_masking",
    "score_events",
    "simulate",
    "to_awkward",
    "ungap",
    "verify",
]
