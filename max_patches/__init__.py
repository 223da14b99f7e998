"""Max patches and Max for Live devices, generated from timbred's vocabulary. Made for users: the folder `timbred`."""
