"""What is true about certificates, names and time: values in, values out, no I/O, no clock, no randomness."""
