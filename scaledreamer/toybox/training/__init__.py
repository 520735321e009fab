"""Training of the bundled priors on pictures of the toys: ``python -m scaledreamer.toybox.training --help``."""
