"""Count what a model costs, now and for every number of removed units."""
