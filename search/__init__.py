"""What varies, and the search for it: spaces of partitions and shortcuts, strategies, populations, studies."""
