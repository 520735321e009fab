"""Meshes: from fields, to files, compared with a truth."""
