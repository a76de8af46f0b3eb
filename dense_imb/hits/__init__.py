"""Sparse hits: events as flat arrays, their files, degradation, frames, simulation."""

from dense_imb.hits.degrade import Degradation, degrade
from dense_imb.hits.events import Events, Geometry, concatenate
from dense_imb.hits.frames import (
    Raster,
    encode,
    frames_to_events,
    gap,
    paint,
    points,
    rasterise,
    ungap,
)
from dense_imb.hits.noise import Blob, Burst, HotLines, HotPixels, Measured, Profile, Uniform
from dense_imb.hits.random import Draws
from dense_imb.hits.simulate import PATTERNS, simulate

__all__ = [
    "PATTERNS",
    "Blob",
    "Burst",
    "Degradation",
    "Draws",
    "Events",
    "Geometry",
    "HotLines",
    "HotPixels",
    "Measured",
    "Profile",
    "Raster",
    "Uniform",
    "concatenate",
    "degrade",
    "encode",
    "frames_to_events",
    "gap",
    "paint",
    "points",
    "rasterise",
    "simulate",
    "ungap",
]
