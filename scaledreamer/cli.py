"""What every entry point shares: mistakes become a clear line and exit code 1, bugs keep their traceback."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from scaledreamer.errors import UserError


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print a user's mistake as a line and exit with code 1; let everything else through with its traceback."""
    # Hydra would otherwise print and leave by itself, before a line can be made of it.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    from scaledreamer.config.resolvers import register_resolvers

    register_resolvers()
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not report(error):
            raise
        sys.exit(1)


def report(error: Exception) -> bool:
    """Print ``error`` to stderr if it is a user's mistake; False if it is not, and nothing was printed."""
    message = explain(error)
    if message is None:
        return False
    print(f"error: {message}", file=sys.stderr)
    return True


def explain(error: BaseException) -> str | None:
    """The mistake in words, or None for an error that is not the user's."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, InstantiationException):
        return explain(error.__cause__) if error.__cause__ is not None else None
    if isinstance(error, HydraException):
        return _explain_composition(error)
    if isinstance(error, OmegaConfBaseException):
        return str(error).splitlines()[0]
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}; choose a folder you can write, e.g. hydra.run.dir=DIR."
    return None


def _explain_composition(error: Exception) -> str:
    """Hydra's own words, with the nearest valid name and the file added where a name was wrong."""
    from hydra.errors import MissingConfigException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    from scaledreamer.config.signature import nearest

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name}: no such option; {nearest(name, error.options)}"
    unknown_group = re.search(r"Could not (?:override|load) '([^']+)'", lines[0]) if lines else None
    cause = error.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and cause.parent_node is not None:
        key = str(cause.full_key or cause.key)
        valid = [str(k) for k in cause.parent_node if str(k) != "hydra"]  # type: ignore[union-attr]
        text = f"{key}: no such key; {nearest(str(cause.key), valid)}"
        where = _file_of_parent(key)
        return f"{text} [{where}]" if where else text
    if unknown_group:
        return f"{unknown_group[1]}: {' '.join(lines)}"
    detail = str(cause).splitlines()[0] if isinstance(cause, Exception) else ""
    return " ".join([*lines, detail]).strip()


def _file_of_parent(key: str) -> str | None:
    """The option file that sets the node a wrong key was looked for in, for the options on the command line."""
    from scaledreamer.config.compose import compose
    from scaledreamer.config.origin import origin_of

    options = [a for a in sys.argv[1:] if re.fullmatch(r"[\w/@]+=\w+", a) and "." not in a.split("=")[0]]
    try:
        return origin_of(compose(options), key)
    except Exception:
        return None
