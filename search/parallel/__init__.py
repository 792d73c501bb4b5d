"""Generations trained by other processes, or by the nodes of a cluster."""
