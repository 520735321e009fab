"""Try a trained generator: a page on this machine, prompt -> turning object -> GLB.

python -m scaledreamer.serve run=outputs/NAME/TIME
"""

import hydra
from omegaconf import DictConfig

from scaledreamer.cli import clear_errors
from scaledreamer.config import CONF, check, plain
from scaledreamer.serve.options import ServeOptions


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="serve")
def main(cfg: DictConfig) -> None:
    """Compose, check, open, answer."""
    check(cfg, ServeOptions)
    options = ServeOptions(**plain(cfg))
    # Heavy imports come after the check, so that a mistake is answered at once.
    from scaledreamer.serve.server import serve

    serve(options)


if __name__ == "__main__":
    with clear_errors():
        main()
