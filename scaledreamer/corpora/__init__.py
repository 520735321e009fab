"""Named prompt lists: where they come from, how they are split, and how a training run draws batches from them."""
