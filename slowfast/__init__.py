"""CLIP video action recognition. Importing this package has no side effect."""

__version__ = "0.1.0"
