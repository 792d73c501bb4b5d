"""Experiments: one importable ``main()`` a file, run by ``python -m experiments.NAME``; results are files."""
