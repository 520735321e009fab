"""``evaluate.py``: how well a trained generator's objects fit their prompts, by CLIP and in the toybox by truth."""
