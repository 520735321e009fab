"""CLIP: what a picture and a text have in common, for judging renders. Nothing here is trained."""
