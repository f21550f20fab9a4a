"""The commands of the core, one module per subject, each imported only when it is called."""
