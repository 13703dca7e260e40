"""Point-cloud data sets."""
