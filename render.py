"""Render what a trained generator makes of prompts: videos, pictures, contact sheets, meshes.

python render.py run=outputs/NAME/TIME prompts=test
"""

import logging

import hydra
from omegaconf import DictConfig

from scaledreamer.cli import clear_errors
from scaledreamer.config import check, plain
from scaledreamer.render.options import RenderOptions

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="render")
def main(cfg: DictConfig) -> None:
    """Compose, check, open, render."""
    check(cfg, RenderOptions)
    options = RenderOptions(**plain(cfg))
    # Heavy imports come after the check, so that a mistake is answered at once.
    from scaledreamer.render.job import in_words, render
    from scaledreamer.render.source import open_trained

    made = render(open_trained(options), options)
    log.info("Done: %s. Which file shows what: %s", in_words(made), options.folder / "index.json")


if __name__ == "__main__":
    with clear_errors():
        main()
