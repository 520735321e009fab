"""Exceptions with a meaning: a user's mistake, which entry points print as a line, and a run that was interrupted."""

import signal


class UserError(Exception):
    """A mistake the user can mend: the message says what was wrong, where, and what to do.

    Raise it for wrong input (configuration, files, arguments), never for a broken invariant of our own code.
    """


class Interrupted(Exception):
    """Training was left after a step, with everything saved.

    Args:
        step: optimiser steps that are done and saved.
        notice: the signal that asked for it, which is answered when the run is closed.
    """

    def __init__(self, step: int, notice: signal.Signals) -> None:
        super().__init__(f"interrupted by {notice.name}; {step} steps are saved.")
        self.step, self.notice = step, notice
