"""What the package adds to Airflow's web UI. Every component imports it, so it imports almost nothing."""
