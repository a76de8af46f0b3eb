"""The report of a run on hits."""
