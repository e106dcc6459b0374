"""What people look at: progress, figures, tables, statistics, comparisons."""
