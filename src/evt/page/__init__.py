"""All results in one HTML file; see `evt.page.__main__`."""
