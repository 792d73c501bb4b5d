"""Where the trials of a run are kept: Optuna's tables, in a file of its folder or in a database."""
