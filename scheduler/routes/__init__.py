"""The routes, one file per noun. Each begins by asking the gate who is calling and what they may do."""
