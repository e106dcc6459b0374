"""Learners. One file a model: a frozen dataclass of options, registered under its configuration name."""
