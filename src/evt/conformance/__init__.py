"""Replays recorded cases: what the published implementations computed, and what this one does."""
