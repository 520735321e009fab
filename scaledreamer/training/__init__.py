"""Build a run from its configuration and train it."""
