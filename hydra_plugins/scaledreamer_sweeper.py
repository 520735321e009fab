"""Where Hydra looks for sweepers; see :mod:`scaledreamer.sweep.sweeper`."""

from scaledreamer.sweep import sweeper


class ResumableSweep(sweeper.ResumableSweep):
    """Hydra takes a plugin from this package alone."""
