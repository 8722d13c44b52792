"""Sources: readers of what a person said, each behind the seam ``Source``, found by name."""
