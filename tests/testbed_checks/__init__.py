"""Checks of the testbed itself."""
