"""The loop that joins cluster and authority: observe, decide, take one step, look again."""
