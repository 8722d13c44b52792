"""The models that answer, one file each; `plugins.py` finds them by name."""
