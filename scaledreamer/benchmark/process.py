"""How long this process has been running."""

import os
import time
from pathlib import Path

_IMPORTED = time.monotonic()


def age() -> float:
    """Seconds since the process began, the start of Python and all imports included.

    Where the system does not tell (it does on Linux): since this module was imported.
    """
    try:
        # Fields after the command's closing bracket begin with the third; the 22nd is the start, in ticks since boot.
        after = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(after[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return time.monotonic() - _IMPORTED
