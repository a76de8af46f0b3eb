"""Events of hits on disk: other formats, conversion, splitting, merging, virtual data sets."""
