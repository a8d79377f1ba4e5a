"""What measures speed, memory and fidelity; run from the repository's root with `python -m benchmarks.<name>`."""
