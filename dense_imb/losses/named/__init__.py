"""Published losses, one a file, each with its formula."""
