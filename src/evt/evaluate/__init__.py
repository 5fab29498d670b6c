"""Runs models on data and measures accuracy, operations, time and memory."""
