"""Sweeps that can be started again, searches, and their tables: ``python -m scaledreamer.sweep FOLDER``."""
