"""Train a language model together, across the internet. Importing this loads neither torch nor numba."""

__version__ = "0.1.0"
