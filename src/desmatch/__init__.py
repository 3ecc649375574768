"""Matching of desensitised short texts: from pairs of numbers to a checked submission."""

__version__ = "0.1.0"
