"""What the system tests stand on: a private PostgreSQL, the proxy, clients, fake peers, a runner."""
