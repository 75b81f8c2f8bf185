"""S3 and GCS behind one small class. Only this room imports obstore."""
