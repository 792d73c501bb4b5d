"""What is tried next: the strategies, the mutations that evolution makes, and the weights that children inherit."""
