"""Text embeddings: computed by a prior's text encoder, cached on disk, served to the training step."""
