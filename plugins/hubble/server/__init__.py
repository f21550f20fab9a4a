"""What serves this node's flows to others: gRPC services on a unix socket, TCP and TLS."""
