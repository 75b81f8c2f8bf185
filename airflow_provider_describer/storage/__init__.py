"""S3 and GCS behind one small class. The only room that knows the library that speaks to them."""
