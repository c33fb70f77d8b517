"""Methods without a network: zero filling, CG-SENSE and compressed sensing."""
