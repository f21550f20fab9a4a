"""What the programs report: connections that began, ended and were refused. Read in bulk, named only when asked for."""
