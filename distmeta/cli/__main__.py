"""For ``python -m distmeta.cli``."""

from distmeta.cli import main

main()
