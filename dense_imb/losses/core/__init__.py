"""The shared part of all losses: contracts, the balanced mean, and protocols of formulas."""
