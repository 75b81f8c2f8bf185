"""The description store: what was asked, what was answered, and how people get to see it."""
