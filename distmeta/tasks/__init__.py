"""Task families, one per file: episodes, loss and metrics. rounds.py and visits.py are about tasks in rounds."""
