"""What all users of one connection share without a server of ours: its rate, its pauses, its day's money.

A small document in a folder, local or in a bucket, replaced by compare-and-swap (`cell.py`). What it says and how it
changes is pure (`leases.py`, `document.py`); `shared.py` keeps one process supplied from it, ahead of need.
"""
