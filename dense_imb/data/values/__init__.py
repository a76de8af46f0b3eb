"""Images with maps of values: pairs by number, cells and key points."""
