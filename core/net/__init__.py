"""Links, addresses, routes, neighbours and network namespaces, through rtnetlink."""
