"""What runs in the pods of the tests: files of their own, given to a plain Python image by a ConfigMap."""
