"""Networks that turn images into features: a registry, and one way to build them all."""
