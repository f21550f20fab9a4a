"""HTTP for plugins that are looked at by browsers and by Prometheus: a small server, closed by default."""
