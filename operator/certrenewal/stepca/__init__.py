"""The authority: the only room that speaks to step-ca."""
