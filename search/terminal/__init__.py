"""What the command line shows of a search."""
