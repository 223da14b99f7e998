"""The mixer: sums voices block by block in numpy, without a device or a clock."""
