"""Studies: the search for better settings with Ray Tune.

space.py        the settings that a trial may have
check.py        checks that a study can start
records.py      a study's directory: the trials, their results, and how they ended
search.py       the next trial's settings
halving.py      which trials pause, and which are promoted (asha)
population.py   which trials continue from another trial (pbt)
execute.py      trials on Ray Tune: their share of the cluster, and how their processes end
trial.py        one trial, in its own process
study.py        a whole study: the search, then the winner on meta-test
report.py       tables and sentences; plots.py: plots
"""
