"""Learners. One file per model: a frozen dataclass of options, registered under its configuration name."""
