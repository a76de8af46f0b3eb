"""The reduction that all losses share: balanced means, partitions, penalties, adjustments."""
