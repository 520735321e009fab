"""Make a page of a run's objects, which turn and can be searched; or of several runs side by side.

python -m scaledreamer.gallery run=outputs/NAME/TIME
"""

import logging

import hydra
from omegaconf import DictConfig

from scaledreamer.cli import clear_errors
from scaledreamer.config import CONF, check, plain
from scaledreamer.gallery.options import GalleryOptions

log = logging.getLogger("scaledreamer.gallery")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="gallery")
def main(cfg: DictConfig) -> None:
    """Compose, check, render what is missing, write."""
    check(cfg, GalleryOptions)
    options = GalleryOptions(**plain(cfg))
    # Heavy imports come after the check, so that a mistake is answered at once.
    from scaledreamer.gallery.job import write_gallery

    log.info("Done: open %s in a browser.", write_gallery(options))


if __name__ == "__main__":
    with clear_errors():
        main()
