"""An attempt that no worker waits for: its process takes the order from the API, executes it and calls back."""
