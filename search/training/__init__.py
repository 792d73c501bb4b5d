"""What a candidate is trained on, what it is built of, and for how long."""
