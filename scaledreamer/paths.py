"""Where things that outlive a run are kept."""

import os
from pathlib import Path

import platformdirs


def data_folder() -> Path:
    """Folder of corpora, priors and text caches: ``$SCALEDREAMER_DATA``, else in the user's cache."""
    configured = os.environ.get("SCALEDREAMER_DATA")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("scaledreamer"))
