"""Meta-learners. One file per published algorithm: a frozen dataclass, registered under its configuration name."""
