"""The bundled priors: a folder each, with its model card."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Holds ``toy`` (diffusers' layout) and ``toy_clip`` (transformers' layout)."""
