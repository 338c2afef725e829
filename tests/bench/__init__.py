"""How fast, and at what cost: figures on the testbed, for `make bench`."""
