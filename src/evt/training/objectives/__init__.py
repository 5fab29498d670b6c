"""What is learned: for each, what a model is given to learn it with, the samples, and the losses."""
