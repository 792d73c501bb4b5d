"""The loop over a plan, compiled for the CPU by numba; it knows arrays and tables, and no torch."""
