"""Pictures of what a model does on a video: what it found, and which tokens it computed anew."""
