"""Task families, one a file: which episodes, what loss, what figures. rounds.py and visits.py are streams."""
