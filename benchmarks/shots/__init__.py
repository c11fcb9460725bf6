"""What benchmarks/tickets.py is made of: the network, the methods, one run, and the figures."""
