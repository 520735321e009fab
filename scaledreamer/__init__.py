"""Text-to-3D generators trained by score distillation from a frozen text-to-image diffusion model."""

__version__ = "0.1.0"
