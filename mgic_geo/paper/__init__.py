"""What only the paper's tables and figures need."""

from mgic_geo.extras import needs

needs("mgic_geo.paper", "train", "matplotlib")
