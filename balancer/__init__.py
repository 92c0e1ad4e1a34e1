"""One address in front of the workers: pool, health, policy, proxy, figures."""
