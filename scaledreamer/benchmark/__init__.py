"""``python -m scaledreamer.benchmark``: time and memory of a training step and of its parts, at any configuration."""
