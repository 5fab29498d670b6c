"""Training, its recipes and objectives, and what is kept of it."""
