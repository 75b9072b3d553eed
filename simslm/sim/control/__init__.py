"""The control plane: it looks at the fleet every so often, asks policies, and gives the orders they decide on."""
