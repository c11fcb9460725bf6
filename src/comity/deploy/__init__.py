"""Where what was learnt is put to use: tickets in files, small enough to carry."""
