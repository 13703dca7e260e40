"""What the experiments share: flags, the run from the settings to the table, and its parts."""
