"""Stores as pictures: which stores may be opened, their rows page by page, their totals and their thumbnails."""
