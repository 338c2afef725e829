"""A real Kubernetes control plane and a real step-ca on loopback, for tests, the demo and benchmarks."""
