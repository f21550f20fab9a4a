"""The bundled plugins. Each docks through the same entry-point group that foreign plugins use."""
