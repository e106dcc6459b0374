"""Studies: the search for better settings with Ray Tune.

space.py     which settings a trial may have
records.py   a study's directory: what its trials are, have come to, and how they ended
search.py    the next trial's settings, and which trials are stopped early
trial.py     one trial, where it runs
study.py     the whole: search, then the winner on meta-test
report.py    tables and plots
"""
