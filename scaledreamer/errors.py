"""The one exception that a user's mistake raises; entry points print it as a line, without a traceback."""


class UserError(Exception):
    """A mistake the user can mend: the message says what was wrong, where, and what to do.

    Raise it for wrong input (configuration, files, arguments), never for a broken invariant of our own code.
    """
