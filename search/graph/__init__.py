"""Spaces of any machines, wired in any way without a cycle: their points, mutations, training and files."""
