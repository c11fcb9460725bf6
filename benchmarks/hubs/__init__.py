"""What benchmarks/network.py starts: hubs, sites and others, as processes."""
