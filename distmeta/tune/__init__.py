"""Studies: the search for better settings with Ray Tune.

space.py        which settings a trial may have
check.py        whether a study could start
records.py      a study's directory: what its trials are, have come to, and how they ended
search.py       the next trial's settings
halving.py      which trials pause, and which go on (asha)
population.py   which trials go on from where others are (pbt)
execute.py      trials on Ray Tune: what each is given of the cluster, and how it ends
trial.py        one trial, where it runs
study.py        the whole: search, then the winner on meta-test
report.py       tables, and what is said in words; plots.py: plots
"""
