"""Files in the takes folder, and the library of all takes."""
