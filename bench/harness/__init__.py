"""What the benches share: rows and where they are kept, the machine, the two sides of a training step."""
