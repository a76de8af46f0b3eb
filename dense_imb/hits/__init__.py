"""Sparse hits: events as flat arrays, their files, degradation, frames, simulation."""

from dense_imb.hits.events import Events, Geometry, concatenate

__all__ = ["Events", "Geometry", "concatenate"]
