"""What turns text into vectors, one file each; `plugins.py` finds them by name."""
