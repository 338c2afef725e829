"""Tests of the pure core: no cluster, no CA, no waiting."""
