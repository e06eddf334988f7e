"""Programs that attack the sandboxes. Each must fail, be told rightly, and leave the sandbox fit for the next."""
