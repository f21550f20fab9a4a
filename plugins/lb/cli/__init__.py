"""The commands of the plugin, a file per group."""
