"""Sensors: new images, slices of a long description job, credits."""
