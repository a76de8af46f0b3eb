"""Time limits of tests: for hangs only, so that no test fails on a busy machine."""

HANG_SECONDS = 600
