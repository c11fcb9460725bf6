"""What happened in a run, who was there and what it cost, on disk and tamper-evident."""
