"""Conveniences for other libraries' engines; each module imports its library, and only that one."""
