"""Score what a trained generator makes of prompts: likeness to them, recall, Janus faces; in the toybox the truth.

python evaluate.py run=outputs/NAME/TIME
"""

import hydra
from omegaconf import DictConfig

from scaledreamer.cli import clear_errors
from scaledreamer.config import check, plain
from scaledreamer.evaluate.options import EvaluateOptions


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Compose, check, score, show."""
    check(cfg, EvaluateOptions)
    options = EvaluateOptions(**plain(cfg))
    # Heavy imports come after the check, so that a mistake is answered at once.
    from scaledreamer.evaluate.job import evaluate
    from scaledreamer.evaluate.table import show
    from scaledreamer.training import loggers

    try:
        show(evaluate(options))
    finally:
        loggers.finish()


if __name__ == "__main__":
    with clear_errors():
        main()
