"""``render.py``: videos, pictures, contact sheets and meshes of what a trained generator makes of prompts."""
