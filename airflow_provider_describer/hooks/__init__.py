"""Airflow hooks: connections in, vendor calls out."""
