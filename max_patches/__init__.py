"""Generator of the Max patches and Max for Live devices in the folder `timbred`."""
