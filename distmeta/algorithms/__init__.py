"""Meta-learners. One published algorithm a file: a frozen dataclass, registered under its configuration name."""
