"""Studies: the search for better settings with Ray Tune.

space.py        which settings a trial may have
check.py        whether a study could start
records.py      a study's directory: its trials, their results, and how they ended
search.py       the next trial's settings
halving.py      which trials pause, and which go on (asha)
population.py   which trials go on from another trial (pbt)
execute.py      trials on Ray Tune: their share of the cluster, and how their processes end
trial.py        one trial, where it runs
study.py        the whole: search, then the winner on meta-test
report.py       tables and sentences; plots.py: plots
"""
