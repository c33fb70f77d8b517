"""Methods without a network: zero filling and compressed sensing."""
