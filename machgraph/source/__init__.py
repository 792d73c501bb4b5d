"""A parametric machine as one readable Python file of plain torch, with its weights beside it."""
