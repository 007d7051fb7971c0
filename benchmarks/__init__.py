"""Measurements whose numbers stand in README.md and docs/."""
