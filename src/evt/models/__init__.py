"""The networks the Eventful mechanism is applied to."""
