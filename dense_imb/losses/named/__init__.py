"""Published losses: one a file, with formula and arithmetic."""
