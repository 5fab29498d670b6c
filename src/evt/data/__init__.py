"""Videos with their ground truth. Knows no model."""
