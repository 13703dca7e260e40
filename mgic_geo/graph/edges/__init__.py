"""What runs along the edges of any graph: sums, shares, maxima and messages."""
