"""Carrying a plan out: sync, start, follow, stop, resume."""
