"""What is finished, as plain files: a folder a cell, which is the truth that everything else is made of."""

from gibench.results.folder import Results

__all__ = ["Results"]
