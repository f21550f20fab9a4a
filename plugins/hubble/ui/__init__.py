"""The page: a live map of who talks to whom, a table of flows, and why. Served by the agent, for a browser and nothing else."""
