"""What all tasks of one connection share: its rate, its pauses and its day's money.

The state is a small document in a folder, local or in a bucket, that is replaced by compare-and-swap. `leases.py` says
how it changes, `document.py` how it is stored, `lease_client.py` what one process holds of it; `shared.py` runs it.
"""
