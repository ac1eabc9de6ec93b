"""Findings and reports, and one renderer a file."""
