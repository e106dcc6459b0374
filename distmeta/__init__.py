"""Ray-distributed meta-training for language: learn a new text task from a handful of examples."""

__version__ = "0.1.0"
