"""Accuracy measures. Know no model and no data set."""
