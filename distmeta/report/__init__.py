"""Output for people: progress, figures, tables, statistics, comparisons."""
