"""The description store: a folder with the journal of all calls and the result files of each task."""
