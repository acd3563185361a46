"""What ``up``, ``down``, ``restart`` and their like do beyond one call: plan, hand over, wait, take down."""
