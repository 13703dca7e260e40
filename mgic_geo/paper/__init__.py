"""What only the paper's tables and figures need."""
