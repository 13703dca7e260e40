"""What the experiments share: flags, the run from the settings to the table, and its parts."""

from mgic_geo.extras import needs

needs("mgic_geo.training", "train", "lightning", "matplotlib", "torchmetrics", "torchvision", "tyro", "yaml")
