"""The C that every plugin shares: stage ABI, connection tracking, delivery, events, entry skeletons, header shim."""
