"""The mixer: which samples go out, decided block by block in numpy. Pure: knows no device and no clock."""
