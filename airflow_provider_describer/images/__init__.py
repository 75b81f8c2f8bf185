"""Images: what refers to them, what they are, and their bytes."""
