"""Detects images that are new in a folder or a bucket."""
