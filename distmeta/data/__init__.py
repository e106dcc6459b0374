"""Files, hub data sets and packages → checked rows → splits → tokens."""
