"""What has newly come into a folder or bucket: one look at it, and a watcher that remembers."""
