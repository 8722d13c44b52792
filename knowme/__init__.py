"""knowme: a private AI that learns one person, on that person's own machine."""

__version__ = "0.1.0"
