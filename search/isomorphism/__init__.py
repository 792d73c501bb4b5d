"""Which points are the same network, and how many different ones a space has."""
